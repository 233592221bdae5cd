"""Files that are whole, whoever writes them."""

import io
import json
import logging
import math
import os
import stat
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest

from lasers_jax import files
from lasers_jax.errors import InputError
from lasers_jax.files import as_json, held, read_arrays, written_whole

WRITE = """
import os, sys
from lasers_jax.files import written_whole
os.getpid = lambda: 1  # as in any container
path, letter = sys.argv[1:]
for _ in range(200):
  with written_whole(path) as file:
    for _ in range(20):
      file.write(letter.encode() * 200)
      file.flush()
  whole = open(path, 'rb').read()
  assert len(whole) == 4000 and len(set(whole)) == 1, whole[:9]
"""


def test_writers_of_one_number_in_two_processes(tmp_path):
  words = [sys.executable, '-c', WRITE, str(tmp_path / 'file')]
  writers = [
    subprocess.Popen([*words, letter], stderr=subprocess.PIPE, text=True)
    for letter in 'ab'
  ]
  for writer in writers:
    _, log = writer.communicate(timeout=200)
    assert writer.returncode == 0, log
  assert os.listdir(tmp_path) == ['file']


def test_writers_in_two_threads(tmp_path):
  path, faults = tmp_path / 'file', []

  def write(letter):
    try:
      for _ in range(100):
        with written_whole(path, 'w') as file:
          file.write(letter * 5000)
        assert path.read_text() in ('a' * 5000, 'b' * 5000)
    except BaseException as error:
      faults.append(error)

  threads = [threading.Thread(target=write, args=x) for x in 'ab']
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not faults and os.listdir(tmp_path) == ['file']


def test_what_fails_leaves_nothing_and_changes_nothing(tmp_path):
  path = tmp_path / 'file'
  for before in ([], ['file']):
    with pytest.raises(KeyboardInterrupt), written_whole(path) as file:
      file.write(b'half')
      raise KeyboardInterrupt
    assert os.listdir(tmp_path) == before
    path.write_bytes(b'whole')
  with pytest.raises(KeyboardInterrupt), written_whole(path):
    raise KeyboardInterrupt
  assert path.read_bytes() == b'whole'


@pytest.mark.parametrize('mask', [0o022, 0o077, 0o007])
def test_permissions_are_those_that_open_gives(tmp_path, mask):
  before = os.umask(mask)
  try:
    for name, write in ('new', written_whole), ('plain', open):
      with write(tmp_path / name, 'wb') as file:
        file.write(b'x')
  finally:
    os.umask(before)
  new, plain = (stat.S_IMODE((tmp_path / x).stat().st_mode) for x in
                ('new', 'plain'))  # fmt: skip
  assert new == plain
  (tmp_path / 'new').chmod(0o640)
  with written_whole(tmp_path / 'new') as file:
    file.write(b'y')
  assert stat.S_IMODE((tmp_path / 'new').stat().st_mode) == 0o640


def test_a_link_stays_one(tmp_path):
  (tmp_path / 'disk').mkdir()
  for target in ('disk/there', 'disk/not yet'):
    link = tmp_path / 'link'
    link.symlink_to(target)
    with written_whole(link, 'w') as file:
      file.write('new')
    assert link.is_symlink() and (tmp_path / target).read_text() == 'new'
    link.unlink()
  assert len(os.listdir(tmp_path / 'disk')) == 2


def test_names_of_any_length_and_bytes(tmp_path):
  for name in ('x' * 255, os.fsdecode(b'\xff.txt')):
    with written_whole(tmp_path / name) as file:
      file.write(b'x')
    assert (tmp_path / name).read_bytes() == b'x'


def test_text_is_utf8_in_any_locale(tmp_path):
  code = (
    'import sys\nfrom lasers_jax.files import written_whole\n'
    'with written_whole(sys.argv[1], "w") as file:\n'
    '  file.write("\\u00d7 \\u2212 \\udcff")\n'
  )
  env = {**os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0',
         'PYTHONCOERCECLOCALE': '0'}  # fmt: skip
  words = [sys.executable, '-c', code, str(tmp_path / 'file')]
  subprocess.run(words, env=env, check=True)
  assert (tmp_path / 'file').read_text('utf-8') == '× − \\udcff'


def test_one_holds_a_lock_at_a_time(tmp_path):
  inside, most = [], []

  def act():
    for _ in range(50):
      with held(tmp_path / '.lock'):
        inside.append(1)
        most.append(len(inside))
        inside.pop()

  threads = [threading.Thread(target=act) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(most) == 150 and max(most) == 1


def test_a_disk_without_locks_is_said(tmp_path, monkeypatch, caplog):
  def fail(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(files.fcntl, 'flock', fail)
  with caplog.at_level(logging.WARNING), held(tmp_path / '.lock'):
    pass
  assert 'cannot be locked: Operation not supported' in caplog.text


def test_what_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='file/.lock cannot be written: Not a d'):
    with held(tmp_path / 'file' / '.lock'):
      pass
  with pytest.raises(InputError, match='file/a cannot be written: Not a d'):
    files.check_folder(tmp_path / 'file' / 'a')
  files.check_folder(tmp_path / 'a' / 'b')
  assert os.listdir(tmp_path / 'a' / 'b') == []


def test_arrays_are_read_as_they_were_saved(tmp_path):
  arrays = {'a': np.arange(6).reshape(2, 3), 'b/c': np.float32([[1.5]])}
  np.savez(tmp_path / 'x.npz', **arrays)
  found = read_arrays(tmp_path / 'x.npz')
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


def _declare(path, shape, dtype='<f8', data=bytes(8)):
  """An .npz file of an array that says its shape and has other data."""
  head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}"
  head = head.ljust(117) + '\n'
  header = b'\x93NUMPY\x01\x00' + len(head).to_bytes(2, 'little')
  _pack(path, 'a.npy', header + head.encode() + data)


def _pack(path, name, data):
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr(name, data)


def _npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


@pytest.mark.parametrize(
  'make',
  [
    lambda path: path.mkdir(),
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(b'PK\3\4 something'),
    lambda path: path.write_text('{"weights": 3}'),
    lambda path: np.savez_compressed(path, a=np.zeros(10**6)),
    lambda path: np.savez(path, a=np.array([{}], object)),
    lambda path: path.write_bytes(_npy(np.zeros(3))),
    lambda path: _pack(path, 'a.npy', b'text'),
    lambda path: _pack(path, 'a.txt', b'text'),
    lambda path: _declare(path, (10**15,)),
    lambda path: _declare(path, (10**9,)),
    lambda path: _declare(path, (-3,)),
    lambda path: _declare(path, (1,), '|O'),
    lambda path: _declare(path, '(' * 5000),
  ],
  ids=[
    'folder', 'empty', 'cut', 'json', 'compressed', 'objects', 'npy', 'text',
    'no-arrays', 'terabytes', 'gigabytes', 'negative', 'pickle', 'nested',
  ],
)  # fmt: skip
def test_what_is_no_file_of_arrays(make, tmp_path):
  path = tmp_path / 'x.npz'
  make(path)
  with pytest.raises(ValueError) as error:
    read_arrays(path)
  assert str(error.value) and '\n' not in str(error.value)
  assert len(str(error.value)) <= 200


def test_arrays_that_are_not_there(tmp_path):
  with pytest.raises(FileNotFoundError):
    read_arrays(tmp_path / 'x.npz')


def test_results_are_json():
  found = {'a': [1.5, math.nan, (math.inf, 'x')], 'b': {'c': -math.inf}}
  text = as_json(found)
  assert json.loads(text, parse_constant=pytest.fail) == {
    'a': [1.5, None, [None, 'x']], 'b': {'c': None}
  }
