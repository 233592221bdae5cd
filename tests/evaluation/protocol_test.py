"""The protocol against a direct computation, image by image."""

import jax
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lasers_jax import inference
from lasers_jax.core import sharding
from lasers_jax.errors import InputError
from lasers_jax.evaluation import protocol
from lasers_jax.experiment.figures import reconstruction_figure
from lasers_jax.experiment.settings import from_config
from lasers_jax.training.state import evaluation_variables
from tests import tiny


@pytest.fixture(scope='module')
def run(tiny_run):
  return from_config(tiny_run.config)


@pytest.fixture(scope='module')
def variables(tiny_run):
  return evaluation_variables(tiny_run.first)


@pytest.fixture(scope='module')
def measured(run, variables):
  return measure(run, variables, batch_size=8)


def measure(run, variables, batch_size, data=None, devices=1):
  data = data or run.data
  source = data.open(data.test)
  batches = data.evaluation_batches(source, batch_size, run.pad_multiple)
  mesh = sharding.make_mesh(data=devices)
  return protocol.evaluate(run.model, variables, batches, mesh)


def test_the_results_are_those_of_a_direct_computation(
  run, variables, measured
):
  images = run.data.first_images(run.data.open('test'), tiny.TEST)
  images = np.stack(images)
  apply = jax.jit(run.model.apply)
  output = apply(variables, images.astype(np.float32) / 255)
  copies = np.round(np.clip(np.float64(output.images), 0, 1) * 255)
  copies = copies.astype(np.uint8)
  psnr = [
    peak_signal_noise_ratio(a, b) for a, b in zip(images, copies, strict=True)
  ]
  ssim = [
    structural_similarity(
      a / 255,
      b / 255,
      channel_axis=-1,
      data_range=1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
    )
    for a, b in zip(images, copies, strict=True)
  ]
  counts = np.bincount(np.ravel(output.latent.codes.atoms), minlength=16)
  p = counts[counts > 0] / counts.sum()
  assert measured['psnr']['count'] == measured['ssim']['count'] == tiny.TEST
  np.testing.assert_allclose(measured['psnr']['mean'], np.mean(psnr), atol=5e-3)
  np.testing.assert_allclose(measured['ssim']['mean'], np.mean(ssim), atol=2e-3)
  assert measured['psnr']['low'] < np.mean(psnr) < measured['psnr']['high']
  np.testing.assert_allclose(measured['usage'], np.mean(counts > 0))
  np.testing.assert_allclose(
    measured['perplexity'], np.exp(-np.sum(p * np.log(p))), rtol=1e-6
  )
  # 8 × 8 sites, each 2 atoms of 4 bits and 2 coefficients of 8.
  bits = measured['bits_per_pixel']['fixed_length']
  assert bits == 64 * (7 + 2 * 8) / 16**2


@pytest.mark.parametrize(('batch_size', 'devices'), [(5, 1), (8, 8)])
def test_batches_and_devices_do_not_matter(
  run, variables, measured, batch_size, devices
):
  other = measure(run, variables, batch_size, devices=devices)
  for name in 'psnr', 'ssim':
    for key, value in measured[name].items():
      # SSIM is 1 less what is lost, in float32.
      np.testing.assert_allclose(other[name][key], value, rtol=1e-6, atol=1e-7)
  assert other['usage'] == measured['usage']
  assert other['perplexity'] == measured['perplexity']
  assert other['bits_per_pixel'] == measured['bits_per_pixel']


@pytest.fixture(scope='module')
def whole(run, tmp_path_factory):
  """Whole pictures of 15 × 17 pixels, which no factor of 2 divides."""
  folder = tmp_path_factory.mktemp('odd') / 'test'
  folder.mkdir()
  rng = np.random.default_rng(0)
  for i in range(3):
    pixels = rng.integers(0, 256, (15, 17, 3), np.uint8)
    tiny.Image.fromarray(pixels).save(folder / f'{i}.png')
  changes = dict(name=f'folder:{folder.parent}', whole=True, side=16)
  return from_config(
    tiny.config('', **{f'data__{k}': v for k, v in changes.items()})
  ).data


def test_whole_pictures_are_padded_and_cropped_back(run, variables, whole):
  results = measure(run, variables, 2, whole)
  image = whole.open('test')[0]['image']
  padded = np.pad(image, ((0, 1), (0, 1), (0, 0)), mode='edge')[None]
  output = jax.jit(run.model.apply)(variables, padded.astype(np.float32) / 255)
  copy = np.round(np.clip(output.images, 0, 1) * 255)[0, :15, :17]
  results_of_one = measure(run, variables, 1, whole)
  assert results['psnr']['count'] == 3
  np.testing.assert_allclose(
    results['psnr']['mean'], results_of_one['psnr']['mean'], rtol=1e-6
  )
  first = peak_signal_noise_ratio(image, copy.astype(np.uint8))
  batches = whole.evaluation_batches(whole.open('test'), 1, run.pad_multiple)
  mesh = sharding.make_mesh(data=1)
  values = protocol.measure(run.model, variables, batches, mesh).values
  np.testing.assert_allclose(values['psnr'][0], first, atol=5e-3)
  # 8 × 9 sites are stored for the 15 × 17 pixels that are shown.
  np.testing.assert_allclose(
    results['bits_per_pixel']['fixed_length'], 8 * 9 * 23 / (15 * 17)
  )


def test_devices_do_not_matter_to_whole_pictures(run, variables, whole):
  one = measure(run, variables, 8, whole)
  eight = measure(run, variables, 8, whole, devices=8)
  for name in 'psnr', 'ssim':
    np.testing.assert_allclose(
      eight[name]['mean'], one[name]['mean'], rtol=1e-6
    )
  assert eight['usage'] == one['usage']
  assert eight['bits_per_pixel'] == one['bits_per_pixel']


def test_pictures_too_small_for_ssim_are_refused(run, variables, tmp_path):
  (tmp_path / 'test').mkdir()
  tiny.Image.new('RGB', (30, 10)).save(tmp_path / 'test' / 'a.png')
  config = tiny.config(tmp_path, data__whole=True)
  with pytest.raises(InputError, match='SSIM needs .* 11x11 .*10x30'):
    measure(run, variables, 1, from_config(config).data)


def test_one_line_says_quality_and_bits(measured):
  line = protocol.one_line(measured)
  assert '\n' not in line
  mean = measured['psnr']['mean']
  for said in (f'PSNR {mean:.2f} dB (', '5.75 bits per pixel', '10 images'):
    assert said in line
  few = {**measured['psnr'], 'low': None, 'high': None}
  line = protocol.one_line({**measured, 'psnr': few})
  assert line.startswith(f'PSNR {mean:.2f} dB, SSIM ')
  unknown = {**measured, 'bits_per_pixel': {'fixed_length': 'continuous'}}
  assert 'continuous' in protocol.one_line(unknown)


def test_scalars_are_named_and_numbers(measured):
  scalars = protocol.scalars(measured, 'validation')
  assert scalars['validation/psnr'] == measured['psnr']['mean']
  assert scalars['validation/bits_per_pixel'] == (7 + 2 * 8) / 4
  unknown = {**measured, 'bits_per_pixel': {'fixed_length': 'continuous'}}
  assert 'x/bits_per_pixel' not in protocol.scalars(unknown, 'x')


def test_a_hash_names_the_weights(variables):
  first = inference.weights_hash(variables)
  assert len(first) == 16
  assert first == inference.weights_hash(variables)
  changed = jax.tree.map(np.array, variables)
  changed['params']['encoder']['Conv_0']['bias'][0] += 1e-3
  assert inference.weights_hash(changed) != first


def test_the_picture_shows_images_of_any_size(run, variables):
  images = [*tiny.images(2), np.zeros((12, 20, 3), np.uint8)]
  mesh = sharding.make_mesh(data=1)
  picture = reconstruction_figure(run.model, variables, images, mesh)
  assert picture.dtype == np.uint8
  assert picture.ndim == 3
  assert picture.shape[0] > 3 * 16
