import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lasers_jax.decoders import Decoder, Diffusion
from lasers_jax.diffusion import draw_times
from lasers_jax.errors import InputError
from lasers_jax.experiment.settings import from_config
from lasers_jax.training.objective import (
  PIXEL_LOSSES,
  LossSettings,
  Objective,
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
  if pixel == 'l1':
    weights['decoder_norm'] = 0.5
  first, settings = tiny_run.first, LossSettings(pixel, weights)
  compute = jax.jit(Objective(model, settings).__call__)
  loss, (metrics, output, codebook) = compute(
    first.params, first.codebook, images, jax.random.key(1), None
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
  assert ('decoder_norm' in metrics) == ('decoder_norm' in weights)
  if 'decoder_norm' in weights:
    leaves = jax.tree.leaves(first.params['decoder'])
    squares = sum(np.sum(np.float64(leaf) ** 2) for leaf in leaves)
    np.testing.assert_allclose(metrics['decoder_norm'], squares / 2, rtol=1e-5)
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
    Objective(model, LossSettings(weights=weights)).check_weights(16)


def test_a_weight_that_nothing_reads_is_an_error(model):
  weights = dict(pixel=1.0, dictionary=1.0, commitment=0.25, codebook=1.0)
  with pytest.raises(InputError, match='nothing reads: codebook$'):
    Objective(model, LossSettings(weights=weights)).check_weights(16)


def test_an_unknown_pixel_loss_is_an_error():
  with pytest.raises(InputError, match="loss.pixel .*'mse', 'l1'.*: 'huber'"):
    LossSettings(pixel='huber')


class Mean(nn.Module):
  """Stands for a perceptual network: the distance of the mean colours."""

  def __call__(self, a, b):
    return jnp.sum((a - b).mean((1, 2)) ** 2, axis=-1)


class Copier(nn.Module):
  """Stands for a U-Net: it predicts the condition, where it is known."""

  def __call__(self, noisy, t, initial, quantized, use_condition):
    return initial * use_condition[:, None, None, None]


class Copying(Diffusion):
  def setup(self):
    Decoder.setup(self)
    self.unet = Copier()


def test_terms_of_perception_and_diffusion(model, tiny_run):
  images = tiny.images(4).astype(np.float32) / 255
  weights = dict(pixel=1.0, dictionary=0.0, commitment=0.0, perceptual=3.0)
  weights |= dict(diffusion=2.0, refined_perceptual=0.5)
  settings = LossSettings(weights=weights, perceptual='lpips-vgg16')
  decoder = Copying(model.decoder.network, condition_dropout=0.5)
  objective = Objective(model.clone(decoder=decoder), settings, Mean())
  terms = objective.check_weights(tiny.SIDE)
  # In the order of the pass, so that the first one to break can be named.
  assert terms[:2] == ['commitment', 'dictionary']
  others = ['pixel', 'perceptual', 'diffusion', 'refined_perceptual']
  assert terms[2:] == others
  first, key = tiny_run.first, jax.random.key(1)
  loss, (metrics, output, _) = jax.jit(objective.__call__)(
    first.params, first.codebook, images, key, {}
  )
  means = (np.float64(images) - output.images).mean((1, 2))
  np.testing.assert_allclose(
    metrics['perceptual'], np.mean(np.sum(means**2, -1)), rtol=1e-4
  )
  total = sum(weights[name] * float(metrics[name]) for name in weights)
  np.testing.assert_allclose(loss, total, rtol=1e-5)
  # The draws of the three keys, and what the stand-in then makes of them.
  keys = jax.random.split(jax.random.fold_in(key, 1), 3)
  use_condition = 1 - np.float64(jax.random.bernoulli(keys[0], 0.5, (4,)))
  angle = np.pi / 2 * np.float64(draw_times(keys[1], 4))[:, None, None, None]
  noise = np.float64(jax.random.normal(keys[2], images.shape))
  initial = 2 * np.float64(output.images) - 1
  v = np.cos(angle) * noise - np.sin(angle) * (2 * np.float64(images) - 1)
  error = v - initial * use_condition[:, None, None, None]
  np.testing.assert_allclose(metrics['diffusion'], np.mean(error**2), rtol=1e-4)


@pytest.mark.parametrize(
  'weights, line',
  [
    (dict(pixel=1.0), 'missing: commitment, dictionary, perceptual$'),
    (
      dict(
        pixel=1.0, dictionary=1, commitment=1, perceptual=1,
        refined_perceptual=1,
      ),
      'nothing reads: refined_perceptual$',
    ),
  ],
)  # fmt: skip
def test_weights_of_perception(model, weights, line):
  settings = LossSettings(weights=weights, perceptual='lpips-vgg16')
  with pytest.raises(InputError, match=line):
    Objective(model, settings, Mean()).check_weights(16)
