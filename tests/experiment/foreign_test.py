"""Tokenizers of other projects do what trained models do."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import lasers_jax as lj
from lasers_jax.core.images import to_uint8_range
from lasers_jax.experiment.priors.loop import train_prior
from lasers_jax.experiment.priors.model import load_prior
from lasers_jax.pretrained.tokenizers import read_tokenizer
from tests.tiny import make_pictures

ROOT = pathlib.Path(__file__).parents[2]
_DATA = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'pretrained'


@pytest.fixture(scope='module')
def copied(tmp_path_factory):
  """Returns a function that copies a random model, and gives its goldens."""
  place = tmp_path_factory.mktemp('foreign')

  def copy(name):
    if not _DATA.exists():
      pytest.skip(f'{_DATA} is not there')
    target = place / name
    if not target.exists():
      shutil.copytree(_DATA / 'random' / name, target)
    with np.load(target / 'golden.npz') as arrays:
      return target, dict(arrays)

  return copy


PROGRAM = 'from lasers_jax.cli.main import main; main()'


def in_bytes(images):
  return np.asarray(to_uint8_range(images)).astype(np.uint8)


def assert_near(images, golden):
  """Images uint8 are those of floats, but for the last bit where it is near."""
  difference = np.abs(images - 255 * np.clip(golden, 0, 1))
  assert difference.max() <= 0.5 + 1e-2


def test_latents_are_the_means_and_the_scale_stands_beside(copied):
  folder, golden = copied('kl')
  model = lj.load(f'diffusers:{folder}')
  assert isinstance(model, lj.TrainedModel)
  latents = model.latents(golden['images'])
  np.testing.assert_allclose(latents, golden['mean'], atol=2e-5)
  np.testing.assert_array_equal(model.scale, np.full(4, 0.18215, np.float32))
  np.testing.assert_array_equal(model.shift, np.zeros(4, np.float32))
  assert_near(model.decode_latents(latents), golden['decoded'])
  assert_near(model.reconstruct(golden['images']), golden['decoded'])
  assert model.bits_per_pixel(32, 48) is None


def test_codes_are_those_of_the_source(copied):
  folder, golden = copied('vq')
  model = lj.load(f'diffusers:{folder}')
  codes = model.encode(golden['images'])
  np.testing.assert_array_equal(codes, golden['indices'])
  assert_near(model.decode(codes), golden['decoded'])
  assert model.bits_per_pixel(32, 48) == 6 / 4
  assert repr(model) == f"<ForeignModel 'diffusers:{folder}': vq, step 0>"
  assert len(repr(read_tokenizer(str(folder)))) < 2_000


def test_a_compressed_file(copied):
  folder, golden = copied('taming')
  model, image = lj.load(folder / 'last.ckpt'), in_bytes(golden['images'])[0]
  model.fit_codec(in_bytes(golden['images']))
  data = model.compress(image)
  assert (folder / 'last.lasers_jax' / 'codec.npz').exists()
  again = lj.load(folder / 'last.ckpt').decompress(data).astype(int)
  # Two programs, which round their floats differently.
  assert np.abs(again - model.reconstruct(image)).max() <= 1


@pytest.mark.slow
def test_quality_and_bits_are_measured(copied):
  folder, golden = copied('vq')
  output = str(folder / 'results')
  images = list(in_bytes(golden['images']))
  results = lj.evaluate(f'diffusers:{folder}', images, output=output)
  assert results['bits_per_pixel']['fixed_length'] == 6 / 4
  assert (folder / 'results' / 'report.html').exists()


def test_sides_that_the_factor_does_not_divide(copied):
  folder, golden = copied('kl')
  model = lj.load(f'diffusers:{folder}')
  image = in_bytes(golden['images'])[0, :18, :26]
  assert model.reconstruct(image).shape == image.shape


def test_an_exported_one_is_read_again(copied, tmp_path):
  folder, golden = copied('vq')
  model = lj.load(f'diffusers:{folder}')
  model.export(tmp_path / 'exported')
  again = lj.load(tmp_path / 'exported')
  assert again.weights == model.weights
  np.testing.assert_array_equal(
    again.encode(golden['images']), golden['indices']
  )


@pytest.mark.parametrize('name', ['kl', 'kl16', 'vq'])
def test_its_scale_travels_with_an_export(name, copied, tmp_path):
  folder, golden = copied(name)
  model = lj.load(f'diffusers:{folder}')
  model.export(tmp_path / 'again', format='diffusers')
  again = lj.load(f'diffusers:{tmp_path}/again')
  np.testing.assert_allclose(again.scale, model.scale, rtol=1e-6)
  np.testing.assert_array_equal(again.shift, model.shift)
  images = golden['images']
  np.testing.assert_array_equal(again.latents(images), model.latents(images))


def test_user_errors_are_one_line(copied, tmp_path):
  folder, _ = copied('vq')
  model = lj.load(f'diffusers:{folder}')
  with pytest.raises(lj.InputError, match='trained elsewhere, and no images'):
    model.fit_codec(context=True)
  with pytest.raises(
    lj.InputError, match='of another project and has no check'
  ):
    lj.load(f'diffusers:{folder}', checkpoint=3)
  with pytest.raises(lj.InputError, match=f'name it as diffusers:{folder}'):
    lj.load(folder)
  with pytest.raises(lj.InputError, match=r'no tokenizer at .*a\.pth: neither'):
    lj.load(tmp_path / 'a.pth')
  with pytest.raises(lj.InputError, match='no tokenizer at .*b: neither'):
    lj.load(f'diffusers:{tmp_path}/b')


@pytest.mark.slow
def test_programs_take_one(copied, tmp_path):
  folder, golden = copied('vq')
  for split in 'train', 'validation', 'test':
    (tmp_path / 'images' / split).mkdir(parents=True)
    for i, image in enumerate(in_bytes(golden['images'])):
      picture = Image.fromarray(image)
      picture.save(tmp_path / 'images' / split / f'{i}.png')
  model, data = (
    f'--model=diffusers:{folder}',
    f'--data=folder:{tmp_path}/images',
  )

  def run(*words):
    command = [sys.executable, '-c', PROGRAM, *words]
    done = subprocess.run(
      command, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  said = run('evaluate', model, data, f'--output={tmp_path}/results')
  assert '1.5 bits per pixel' in said
  assert (tmp_path / 'results' / 'results.json').exists()
  source = tmp_path / 'images' / 'test' / '0.png'
  run('codec', 'encode', model, data, str(source), str(tmp_path / 'coded'))
  coded = (tmp_path / 'coded' / '0.lz').read_bytes()
  model = lj.load(f'diffusers:{folder}')
  image = model.decompress(coded).astype(int)
  expected = model.reconstruct(in_bytes(golden['images'])[0])
  assert np.abs(image - expected).max() <= 1


@pytest.mark.slow
def test_a_prior_over_one_finds_its_images_again(copied, tmp_path):
  folder, _ = copied('vq')
  images = make_pictures(tmp_path / 'images')
  shutil.copytree(images / 'test', images / 'validation')
  config = {
    'steps': 1,
    'batch_size': 8,
    'prior': {'name': 'ar', 'width': 8, 'layers': 1, 'heads': 1},
    'evaluation': {'batch_size': 8, 'pictures': 2},
    'stage_one': {'data': f'folder:{images}', 'side': 16},
    'tensorboard': False,
  }
  train_prior(config, f'diffusers:{folder}', str(tmp_path / 'prior'))
  prior = load_prior(tmp_path / 'prior')
  assert prior.view.side == 16
  assert prior.view.model.path == f'diffusers:{folder}'
