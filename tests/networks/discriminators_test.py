import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.networks.discriminators import (
  DISCRIMINATORS,
  PatchGAN,
  StyleGAN,
  blur_pool,
)

RNG = np.random.default_rng(0)


def images(side, n=2):
  return RNG.random((n, side, side, 3), np.float32)


@pytest.mark.parametrize('name', DISCRIMINATORS)
def test_logits_are_of_single_images(name):
  module = DISCRIMINATORS[name](channels=8, num_downsamples=1)
  x = images(16)
  variables = jax.jit(module.init)(jax.random.key(0), x)
  apply = jax.jit(module.apply)
  logits = apply(variables, x)
  assert logits.ndim == 3
  assert logits.dtype == jnp.float32
  x[1] = 0
  np.testing.assert_array_equal(apply(variables, x)[0], logits[0])


@pytest.mark.parametrize(
  'num_downsamples, side, patch', [(1, 32, 16), (2, 64, 34)]
)
def test_the_patch_that_a_logit_sees(num_downsamples, side, patch):
  """16 and 34 pixels, as P. Isola et al. count them (70 with three)."""
  module = PatchGAN(channels=4, num_downsamples=num_downsamples)
  x = jnp.asarray(images(side, 1))
  variables = jax.jit(module.init)(jax.random.key(0), x)

  @jax.jit
  @jax.grad
  def sensitivity(x):
    # Without normalisation, which looks at the whole image.
    logits = module.apply(variables, x)
    return logits[0, logits.shape[1] // 2, logits.shape[2] // 2]

  with pytest.MonkeyPatch.context() as context:
    context.setattr(
      'lasers_jax.networks.discriminators.normalize', lambda x, dtype: x
    )
    seen = np.any(np.asarray(sensitivity(x)) != 0, axis=(0, 3))
  rows = np.flatnonzero(seen.any(axis=1))
  assert rows[-1] - rows[0] + 1 == patch


def test_patchgan_has_the_parameters_of_vqgan():
  """2,765,633 of NLayerDiscriminator with its default fields."""
  shapes = jax.eval_shape(PatchGAN().init, jax.random.key(0), images(64))
  count = sum(x.size for x in jax.tree.leaves(shapes))
  # Its convolutions before a normalisation have no bias.
  assert count - (128 + 256 + 512) == 2_765_633


def test_stylegan_takes_any_size():
  module = StyleGAN(channels=4, num_downsamples=2)
  variables = jax.jit(module.init)(jax.random.key(0), images(16))
  found = jax.jit(module.apply)(variables, images(21))
  assert found.shape == (2, 1, 1)
  assert np.isfinite(found).all()


def test_blurring_keeps_a_constant_and_halves():
  x = np.full((1, 6, 4, 2), 3.0, np.float32)
  np.testing.assert_allclose(blur_pool(x), np.full((1, 3, 2, 2), 3.0))


def test_blurring_is_a_convolution():
  x = RNG.standard_normal((1, 8, 8, 1)).astype(np.float32)
  taps = np.array([1, 3, 3, 1]) / 8
  padded = np.pad(np.float64(x[0, :, :, 0]), 1, mode='edge')
  expected = np.array(
    [
      [taps @ padded[i : i + 4, j : j + 4] @ taps for j in range(0, 8, 2)]
      for i in range(0, 8, 2)
    ]
  )
  np.testing.assert_allclose(blur_pool(x)[0, :, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize('name, least', [('patchgan', 12), ('stylegan', 16)])
def test_small_images_are_an_error(name, least):
  module = DISCRIMINATORS[name](channels=4, num_downsamples=2)
  jax.eval_shape(module.init, jax.random.key(0), images(least))
  with pytest.raises(InputError, match=f'at least {least}x{least} pixels, not'):
    jax.eval_shape(module.init, jax.random.key(0), images(least - 1))
