"""Packing that is interrupted, killed or refused, and by several processes."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from lasers_jax.data import open_source
from lasers_jax.data import shards as writing
from lasers_jax.data.packing import pack, pack_splits
from lasers_jax.data.records import MANIFEST, PLAN
from lasers_jax.data.shards import Packing
from lasers_jax.errors import InputError, TrainingError
from tests.data.made import noise, save
from tests.data.packed import SMALL, Arrays, assert_equal, files_of, png

ROOT = pathlib.Path(__file__).parents[2]


def test_what_was_interrupted_goes_on_with_the_same_result(
  folder, tmp_path, monkeypatch
):
  source = open_source(f'folder:{folder}', 'train')
  pack(source, str(tmp_path / 'once'), SMALL)
  target = str(tmp_path / 'twice')
  written, write_shard = [], writing.write_shard

  def interrupted(job, *args):
    if len(written) == 2:
      raise KeyboardInterrupt
    written.append(job.number)
    return write_shard(job, *args)

  patched = 'lasers_jax.data.packing.write_shard'
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(patched, interrupted)
    pack(source, target, SMALL)
  with pytest.raises(InputError, match='not packed to its end: run the same'):
    open_source(f'records:{target}', 'train')
  (tmp_path / 'twice/train/.left-by-a-killed-process.part').write_text('half')
  monkeypatch.setattr(
    patched,
    lambda job, *args: (written.append(job.number), write_shard(job, *args))[1],
  )
  pack(source, target, SMALL)
  assert written == [0, 1, 2, 3]
  assert files_of(tmp_path / 'once') == files_of(tmp_path / 'twice')
  pack(source, target, SMALL)  # There is nothing left to do.
  assert written == [0, 1, 2, 3]


def test_a_target_of_others_is_refused(folder, tmp_path):
  target = str(tmp_path / 'records')
  source = open_source(f'folder:{folder}', 'train')
  pack(source, target, SMALL)
  with pytest.raises(InputError, match='packed with per_shard=3, not 4: '):
    pack(source, target, Packing(per_shard=4))
  with pytest.raises(InputError, match='packed with side=None, not 16: '):
    pack(source, target, Packing(16, per_shard=3))
  with pytest.raises(InputError, match='not those of arrays: choose another'):
    pack(Arrays(), target, SMALL)
  # The same images may have moved.
  shutil.move(folder, tmp_path / 'moved')
  moved = open_source(f'folder:{tmp_path / "moved"}', 'train')
  assert pack(moved, target, SMALL).counts == [3, 3, 3, 1]


class _Damaged(Arrays):
  """Files of which some can no longer be decoded."""

  good = 1, 3

  def stored(self, index):
    image = png(noise(seed=index))
    cut = image if index in self.good else image[:50]
    return writing.Stored(cut, index, f'{index}.png')


@pytest.mark.parametrize('side', [None, 8])
def test_damaged_images_are_left_out_and_named(tmp_path, side):
  manifest = pack(_Damaged(), str(tmp_path), Packing(side, per_shard=2))
  assert manifest.counts == [1, 1, 0]
  assert manifest.left_out == 3
  assert [name for name, _ in manifest.skipped] == ['0.png', '2.png', '4.png']
  found = open_source(f'records:{tmp_path}', 'train')
  assert [found[i]['label'] for i in range(len(found))] == [1, 3]


def test_without_a_good_image_nothing_is_packed(tmp_path):
  source = _Damaged()
  source.good = ()
  with pytest.raises(InputError, match='none of the 5 images of arrays can be'):
    pack(source, str(tmp_path), SMALL)
  assert not (tmp_path / 'train' / MANIFEST).exists()


def test_a_disk_that_is_full_is_one_line(tmp_path, monkeypatch):
  def part_of(path):
    return contextlib.nullcontext('/dev/full')

  monkeypatch.setattr(writing, 'part_of', part_of)
  line = '00000.array_record cannot be written: .*No space left.*make room'
  with pytest.raises(InputError, match=line) as error:
    pack(Arrays(), str(tmp_path), SMALL)
  assert '\n' not in str(error.value)


def test_a_target_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot be written: Not a directory'):
    pack(Arrays(), str(tmp_path / 'file'), SMALL)


def test_settings_are_in_range():
  with pytest.raises(InputError, match='side is 4: it must be .* at least 8'):
    Packing(4)
  with pytest.raises(InputError, match="encoding is 'webp': it must be jpeg"):
    Packing(64, 'webp')


@pytest.mark.slow
def test_processes_write_the_same_bytes(folder, tmp_path):
  pack_splits(f'folder:{folder}', str(tmp_path / 'one'), SMALL, ['train'])
  words = [f'folder:{folder}', str(tmp_path / 'two'), '--per_shard=3']
  words.append('--splits=train')
  done = _program(*words, '--workers=2')
  assert done.returncode == 0, done.stderr
  assert 'two/train: 10 images, ' in done.stdout
  assert files_of(tmp_path / 'one') == files_of(tmp_path / 'two')


@pytest.mark.slow
def test_a_killed_program_goes_on_with_the_same_result(tmp_path):
  for i in range(200):
    save(tmp_path / 'set' / f'{i}.png', noise(200, 200, seed=i))
  words = [f'folder:{tmp_path}/set', str(tmp_path / 'killed')]
  words += ['--per_shard=10', '--splits=all', '--side=100', '--workers=2']
  process = subprocess.Popen(
    [sys.executable, '-c', _PROGRAM, 'pack', *words], cwd=ROOT,
    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
  )  # fmt: skip
  folder, start = tmp_path / 'killed' / 'all', time.monotonic()
  while len([*folder.glob('*.json')]) < 3:  # the plan and two shards
    assert process.poll() is None
    assert time.monotonic() < start + 60
    time.sleep(0.01)
  process.kill()
  process.communicate(timeout=60)  # its own processes have ended, too
  assert not (folder / MANIFEST).exists()
  packing = Packing(100, per_shard=10)
  for target in 'killed', 'whole':
    pack_splits(words[0], str(tmp_path / target), packing, ['all'])
  assert files_of(tmp_path / 'killed') == files_of(tmp_path / 'whole')


_PROGRAM = 'from lasers_jax.cli.main import main; main()'


def _program(*words):
  return subprocess.run(
    [sys.executable, '-c', _PROGRAM, 'pack', *words],
    capture_output=True, text=True, cwd=ROOT,
  )  # fmt: skip


@pytest.mark.slow
def test_a_process_that_dies_is_one_line_and_the_rest_goes_on(tmp_path):
  with pytest.raises(TrainingError, match='ended, perhaps for want of memory'):
    pack(_Deadly(), str(tmp_path), SMALL, workers=1)
  assert (tmp_path / 'train' / PLAN).exists()
  source = _Deadly()
  source.deadly = False
  pack(source, str(tmp_path), SMALL)
  assert_equal(open_source(f'records:{tmp_path}', 'train'), Arrays())


class _Deadly(Arrays):
  """Kills the process that reads its last image."""

  deadly = True

  def __getitem__(self, index):
    if self.deadly and index == 4:
      os._exit(9)
    return super().__getitem__(index)
