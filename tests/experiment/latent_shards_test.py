"""Latents and codes in shards."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

import lasers_jax as lj
from lasers_jax.data.opening import open_source
from lasers_jax.data.pipeline import center_crop
from lasers_jax.errors import InputError
from lasers_jax.experiment import latent_shards
from lasers_jax.experiment.latent_shards import Shards, write_latents
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def model(tiny_run):
  return lj.load(tiny_run.workdir)


def expected(pictures, split='train'):
  """The images in order, as they are cropped, and their names."""
  source = open_source(f'folder:{pictures}', split)
  images = [center_crop(x['image'], tiny.SIDE) for x in source]
  return np.stack(images), [os.path.basename(x) for x in source.paths]


def files(folder):
  return {x.name: x.read_bytes() for x in sorted(folder.iterdir())}


def test_shards_hold_the_latents_of_the_model(model, pictures, tmp_path):
  found = write_latents(
    model, str(tmp_path), Shards(per_shard=5), splits=['train']
  )
  images, names = expected(pictures)
  each = sorted((tmp_path / 'train').glob('*.safetensors'))
  assert [x.name for x in each] == [f'0000{i}.safetensors' for i in range(3)]
  arrays = [load(x.read_bytes()) for x in each]
  joined = np.concatenate([x['latents'] for x in arrays])
  np.testing.assert_allclose(joined, model.latents(images), atol=1e-5)
  assert np.concatenate([x['label'] for x in arrays]).tolist() == [-1] * len(
    names
  )
  said = []
  for file in each:
    with safe_open(file, 'numpy') as opened:
      said += json.loads(opened.metadata()['names'])
  assert [x.rpartition('/')[2] for x in said] == names
  stats = json.loads((tmp_path / 'train' / 'stats.json').read_text())
  assert stats == found['train']
  assert stats['weights'] == model.weights
  assert (stats['count'], stats['counts']) == (11, [5, 5, 1])
  np.testing.assert_allclose(stats['mean'], joined.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(stats['std'], joined.std((0, 1, 2)), rtol=1e-4)
  assert {x.name for x in (tmp_path / 'train').iterdir()} == {
    'stats.json', *(x.name for x in each)
  }  # fmt: skip


def test_codes_decode_to_the_images_of_the_model(model, pictures, tmp_path):
  write_latents(model, str(tmp_path), Shards('codes'), splits=['train'])
  arrays = load((tmp_path / 'train' / '00000.safetensors').read_bytes())
  images, _ = expected(pictures)
  codes = model.encode(images)
  np.testing.assert_array_equal(arrays['codes/atoms'], codes.atoms)
  np.testing.assert_array_equal(
    arrays['codes/coefficients'], codes.coefficients
  )


def test_records_are_of_single_images(model, pictures, tmp_path):
  from array_record.python.array_record_module import ArrayRecordReader

  shards = Shards(kind='array_record')
  write_latents(model, str(tmp_path), shards, splits=['test'])
  reader = ArrayRecordReader(str(tmp_path / 'test' / '00000.array_record'))
  images, names = expected(pictures, 'test')
  rows = [load(x) for x in reader.read_all()]
  reader.close()
  np.testing.assert_allclose(
    [x['latents'] for x in rows], model.latents(images), atol=1e-5
  )
  assert [int(x['label']) for x in rows] == [-1] * len(names)


@pytest.mark.parametrize('kind', ['safetensors', 'array_record'])
def test_going_on_gives_the_same_bytes(model, tmp_path, monkeypatch, kind):
  shards = Shards(kind=kind, per_shard=4)
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  write_latents(model, str(whole), shards, splits=['train'])
  write, seen = latent_shards._write, []

  def breaking(job, *args):
    seen.append(job.number)
    if len(seen) == 3:
      raise KeyboardInterrupt
    write(job, *args)

  monkeypatch.setattr(latent_shards, '_write', breaking)
  with pytest.raises(KeyboardInterrupt):
    write_latents(model, str(stopped), shards, splits=['train'])
  assert not (stopped / 'train' / 'stats.json').exists()
  write_latents(model, str(stopped), shards, splits=['train'])
  assert seen == [0, 1, 2, 2]
  assert files(stopped / 'train') == files(whole / 'train')
  write_latents(model, str(stopped), shards, splits=['train'])
  assert len(seen) == 4  # nothing is left to do


def test_other_latents_are_refused(model, tmp_path):
  target = str(tmp_path)
  write_latents(model, target, Shards(), splits=['test'])
  with pytest.raises(InputError) as error:
    write_latents(model.with_(S=1), target, Shards(), splits=['test'])
  assert str(error.value) == (
    f"{target}/test was packed with changes={{}}, not {{'S': 1}}: say so, "
    'choose another target, or remove it'
  )
  with pytest.raises(InputError, match=r'content=latents, not codes: say so'):
    write_latents(model, target, Shards('codes'), splits=['test'])
  with pytest.raises(InputError, match="kind is 'npz'"):
    Shards(kind='npz')


def test_a_run_on_given_images_has_none_to_open(model, tmp_path, monkeypatch):
  monkeypatch.setattr(latent_shards, 'GIVEN', model.experiment.data.name)
  with pytest.raises(InputError) as error:
    write_latents(model, str(tmp_path), Shards())
  assert str(error.value) == (
    'the images of this run were given by a program: name others (--data)'
  )


PROGRAM = 'from lasers_jax.cli.main import main; main()'


def test_the_program(tiny_run, pictures, tmp_path):
  def run(*words):
    return subprocess.run(
      [sys.executable, '-c', PROGRAM, 'latents', *words],
      capture_output=True,
      text=True,
      cwd=pathlib.Path(__file__).parents[2],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    )

  words = f'--model={tiny_run.workdir}', f'--data=folder:{pictures}'
  done = run(*words, '--splits=test', str(tmp_path))
  assert done.returncode == 0, done.stderr
  assert f'{tmp_path}/test: {tiny.TEST} images, 1 shards, w' in done.stdout
  done = run(*words)
  assert done.returncode == 2
  assert done.stderr == (
    'error: lasers-jax latents --model=WORKDIR [--data=NAME] TARGET: a model '
    'and a folder\n'
  )
