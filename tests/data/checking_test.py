import os

import numpy as np
import pytest

from lasers_jax.data import checking
from lasers_jax.data.checking import check
from tests.data.made import noise, rgb_profile, save


@pytest.fixture
def looked(monkeypatch):
  """The names of the files that are read, as they are."""
  names, look = [], checking.look

  def counted(path):
    names.append(os.path.basename(path))
    return look(path)

  monkeypatch.setattr(checking, 'look', counted)
  return names


def _pictures(root, count=6):
  names = [f'{i}.png' for i in range(count)]
  for i, name in enumerate(names):
    save(root / name, noise(12 + i, 10, seed=i))
  return names


def test_each_file_has_its_size_and_its_fault(tmp_path):
  names = _pictures(tmp_path)
  (tmp_path / 'bad.png').write_bytes(b'no picture')
  found = check(str(tmp_path), [*names, 'bad.png', 'gone.png'])
  for i, name in enumerate(names):
    assert found[i].look == (12 + i, 10, None, None)
    assert found[i].bytes == (tmp_path / name).stat().st_size
  assert 'cannot identify' in found[-2].look.fault
  assert 'No such file' in found[-1].look.fault


def test_what_was_good_is_not_read_again(tmp_path, looked):
  names, kept = _pictures(tmp_path / 'a'), tmp_path / 'run' / 'kept.npy'
  first = check(str(tmp_path / 'a'), names, kept)
  assert sorted(looked) == names
  looked.clear()
  assert check(str(tmp_path / 'a'), names, kept) == first
  assert looked == []
  # Also where the folder has moved.
  (tmp_path / 'a').rename(tmp_path / 'b')
  assert check(str(tmp_path / 'b'), names, kept) == first
  assert looked == []


def test_what_changed_or_was_bad_is_read_again(tmp_path, looked):
  names, kept = _pictures(tmp_path), tmp_path / 'kept.npy'
  (tmp_path / 'bad.png').write_bytes(b'no picture')
  save(tmp_path / 'odd.png', icc_profile=rgb_profile()[:99])
  names += ['bad.png', 'odd.png']
  check(str(tmp_path), names, kept)
  looked.clear()
  time = (tmp_path / names[0]).stat().st_mtime_ns
  os.utime(tmp_path / names[0], ns=(time, time + 1_000_000))
  (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes()[:-30])
  found = check(str(tmp_path), names, kept)
  assert sorted(looked) == ['0.png', '1.png', 'bad.png', 'odd.png']
  assert found[1].look.fault
  assert found[-2].look.fault
  assert found[-1].look.profile


@pytest.mark.parametrize(
  'damage',
  [
    lambda data: data[:-7],
    lambda _: b'',
    lambda _: b'\0' * 200,
    lambda _: b'PK\x03\x04',
    lambda data: data.replace(b'height', b'weight'),
  ],
)
def test_a_damaged_list_is_made_anew(tmp_path, looked, damage):
  names, kept = _pictures(tmp_path), tmp_path / 'kept.npy'
  check(str(tmp_path), names, kept)
  kept.write_bytes(damage(kept.read_bytes()))
  looked.clear()
  check(str(tmp_path), names, kept)
  assert sorted(looked) == names
  looked.clear()
  check(str(tmp_path), names, kept)
  assert looked == []


def test_a_list_of_objects_is_not_opened(tmp_path, looked):
  names, kept = _pictures(tmp_path), tmp_path / 'kept.npy'
  np.save(kept, np.array([{}], object), allow_pickle=True)
  check(str(tmp_path), names, kept)
  assert sorted(looked) == names


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path):
  names = _pictures(tmp_path)
  (tmp_path / 'file').write_text('')
  found = check(str(tmp_path), names, tmp_path / 'file' / 'kept.npy')
  assert len(found) == len(names)


def test_what_was_done_is_kept_when_interrupted(tmp_path, looked, monkeypatch):
  names, kept = _pictures(tmp_path), tmp_path / 'kept.npy'
  look = checking.look

  def interrupted(path):
    if path.endswith('4.png'):
      raise KeyboardInterrupt
    return look(path)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(checking, 'look', interrupted)
    check(str(tmp_path), names, kept)
  looked.clear()
  check(str(tmp_path), names, kept)
  assert set(looked) == {'4.png', '5.png'}


def test_progress_is_said(tmp_path, monkeypatch, caplog):
  names = _pictures(tmp_path)
  monkeypatch.setattr('lasers_jax.data.listing._EVERY', 0.0)
  with caplog.at_level('INFO'):
    check(str(tmp_path), names)
  assert caplog.messages[2] == f'checked 3 of 6 images of {tmp_path}'
