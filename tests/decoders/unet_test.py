import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.decoders.unet import UNet, unet_factor
from lasers_jax.errors import InputError

B, SIDE, D = 2, 8, 4
FIELDS = {
  'channels': 8,
  'multipliers': (1, 2),
  'num_downsamples': 0,
  'blocks': 1,
  'attention': (),
  'latent': False,
}


def inputs(side=SIDE, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.standard_normal((2, B, side, side, 3)).astype(np.float32)
  latent = rng.standard_normal((B, side // 4, side // 4, D))
  times = np.array([0.2, 0.7], np.float32)
  return image[0], times, image[1], np.float32(latent), np.ones(B, bool)


def build(**fields):
  module = UNet(**{**FIELDS, **fields})
  shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs())
  rng = np.random.default_rng(1)
  # None are zero, as those are that the network begins with.
  return module, jax.tree.map(
    lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), shapes
  )


@pytest.fixture(scope='module', params=[False, True], ids=['image', 'latent'])
def unet(request):
  num_downsamples = int(request.param)
  module, variables = build(
    latent=request.param, attention=(1,), num_downsamples=num_downsamples
  )
  return module, jax.jit(lambda *args: module.apply(variables, *args))


def changes(apply, index, given=inputs()):  # noqa: B008
  """Whether another argument of an image changes that image alone."""
  other = list(given)
  value = np.array(other[index])
  value[0] = ~value[0] if value.dtype == bool else value[0] + 0.1
  other[index] = value
  before, after = apply(*given), apply(*other)
  np.testing.assert_array_equal(before[1], after[1])
  return bool(np.any(before[0] != after[0]))


def test_what_the_prediction_depends_on(unet):
  module, apply = unet
  assert apply(*inputs()).shape == (B, SIDE, SIDE, 3)
  noisy, time, initial, latent, use_condition = (
    changes(apply, i) for i in range(5)
  )
  assert noisy
  assert time
  assert initial
  assert use_condition
  assert latent == module.latent


def test_a_hidden_condition_is_not_seen(unet):
  _, apply = unet
  *given, _ = inputs()
  hidden = (*given, np.zeros(B, bool))
  assert not changes(apply, 2, hidden)
  assert not changes(apply, 3, hidden)


def test_both_images_pass_at_full_size_as_the_time_asks(unet):
  module, _ = unet
  given = list(inputs())
  given[4] = np.array([True, False])
  shapes = jax.eval_shape(module.init, jax.random.key(0), *given)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  zeros['params']['skip']['bias'] = jnp.array([0.5, 2.0])
  passed = module.apply(zeros, *given)
  np.testing.assert_allclose(
    passed[0], 0.5 * given[0][0] + 2 * given[2][0], atol=1e-6
  )
  np.testing.assert_allclose(passed[1], 0.5 * given[0][1], atol=1e-6)


def test_it_begins_by_predicting_nothing():
  module = UNet(**{**FIELDS, 'multipliers': (1,)})
  v, _ = module.init_with_output(jax.random.key(0), *inputs())
  np.testing.assert_array_equal(v, 0)


def test_the_sides_must_divide():
  assert unet_factor((1, 2), num_downsamples=1) == 4
  assert unet_factor((1, 2, 4), num_downsamples=0) == 4
  module = UNet(**{**FIELDS, 'multipliers': (1, 2, 4)})
  with pytest.raises(InputError, match='6x6 pixels do not divide by .* 4'):
    jax.eval_shape(module.init, jax.random.key(0), *inputs(side=6))


def test_attention_is_at_levels_that_there_are():
  with pytest.raises(InputError, match=r'attention is \(0, 2\): .* than 2, as'):
    build(attention=(0, 2))
