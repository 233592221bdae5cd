import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.settings import from_config
from lasers_jax.training.objective import (
  PIXEL_LOSSES,
  LossSettings,
  check_weights,
  objective,
  training_psnr,
)
from tests import tiny


@pytest.fixture(scope='module')
def model():
  return from_config(tiny.config('unused')).model


@pytest.mark.parametrize('pixel', ['mse', 'l1'])
def test_the_loss_is_the_weighted_sum_of_its_terms(model, tiny_run, pixel):
  images = tiny.images(4).astype(np.float32) / 255
  weights = dict(pixel=10.0, dictionary=2.0, commitment=0.25)
  first, settings = tiny_run.first, LossSettings(pixel, weights)
  compute = jax.jit(functools.partial(objective, model, settings))
  loss, (metrics, output, codebook) = compute(
    first.params, first.codebook, images, jax.random.key(1)
  )
  error = images.astype(np.float64) - np.asarray(output.images, np.float64)
  expected = np.mean(error**2 if pixel == 'mse' else np.abs(error))
  np.testing.assert_allclose(metrics['pixel'], expected, rtol=1e-5)
  total = sum(weights[name] * float(metrics[name]) for name in weights)
  np.testing.assert_allclose(loss, total, rtol=1e-5)
  np.testing.assert_allclose(metrics['loss'], loss)
  z, q = np.float64(output.z), np.float64(output.latent.quantized)
  np.testing.assert_allclose(
    metrics['commitment'], np.mean((z - q) ** 2), rtol=1e-4
  )
  assert {'psnr', 'usage', 'perplexity'} < metrics.keys()
  used = codebook['bottleneck']['use']
  assert not np.array_equal(used, first.codebook['bottleneck']['use'])


def test_pixel_losses_are_means_over_an_image():
  rng = np.random.default_rng(0)
  x, y = rng.random((2, 3, 4, 4, 3), np.float32)
  axes = (1, 2, 3)
  np.testing.assert_allclose(
    PIXEL_LOSSES['mse'](x, y), np.mean((x - y) ** 2, axes), rtol=1e-5
  )
  np.testing.assert_allclose(
    PIXEL_LOSSES['l1'](x, y), np.mean(np.abs(x - y), axes), rtol=1e-5
  )


def test_psnr_is_of_clipped_images():
  x = np.full((1, 4, 4, 3), 0.75, np.float32)
  # Off by 0.25 once clipped to 1; 20 log10(4) dB.
  y = np.full((1, 4, 4, 3), 3.0, np.float32)
  np.testing.assert_allclose(training_psnr(x, y), 20 * np.log10(4), rtol=1e-5)
  assert np.isfinite(training_psnr(x, x)).all()


def test_psnr_has_no_gradient():
  x = jnp.full((1, 4, 4, 3), 0.5)
  gradient = jax.grad(lambda y: training_psnr(x, y).sum())(x + 0.1)
  assert not gradient.any()


def test_a_missing_weight_is_an_error(model):
  weights = dict(pixel=1.0, dictionary=1.0)
  with pytest.raises(InputError, match='missing: commitment$'):
    check_weights(model, LossSettings(weights=weights), 16)


def test_a_weight_that_nothing_reads_is_an_error(model):
  weights = dict(pixel=1.0, dictionary=1.0, commitment=0.25, codebook=1.0)
  with pytest.raises(InputError, match='nothing reads: codebook$'):
    check_weights(model, LossSettings(weights=weights), 16)


def test_an_unknown_pixel_loss_is_an_error():
  with pytest.raises(InputError, match="loss.pixel .*'mse', 'l1'.*: 'huber'"):
    LossSettings(pixel='huber')
