"""The objective of restorations: weights of pixels, keys of damage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.core import sharding
from lasers_jax.core.images import to_float
from lasers_jax.degradations import DEGRADATIONS, degrade, row_keys
from lasers_jax.experiment import loop
from lasers_jax.experiment.settings import from_config
from lasers_jax.training.objective import PIXEL_LOSSES, Objective
from tests import tiny

KEYS = row_keys(jax.random.key(0), 3)


@pytest.mark.parametrize('name', PIXEL_LOSSES)
def test_weights_of_one_are_a_mean(name):
  error = jax.jit(PIXEL_LOSSES[name])
  a, b = jax.random.uniform(jax.random.key(0), (2, 5, 32, 24, 3))
  ones = jnp.ones((5, 32, 24, 1))
  np.testing.assert_allclose(error(a, b), error(a, b, ones), rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'fields'),
  [('denoise', {'sigma': (0.0,)}), ('inpaint', {'known_weight': 1.0})],
)
def test_weights_of_one_change_no_bit_of_the_loss(name, fields):
  settings = DEGRADATIONS[name](**fields)
  assert not settings.weighs_pixels
  of_images = PIXEL_LOSSES['mse']
  images = to_float(tiny.images(3))
  restored = jnp.roll(images, 1, axis=1)
  _, weights = objective(settings).degraded(images, jax.random.key(0))
  assert (degrade(settings, images, KEYS).weights == 1).all()
  np.testing.assert_array_equal(
    of_images(images, restored, weights), of_images(images, restored)
  )


def test_nothing_done_to_images_changes_no_bit_of_a_step():
  none, still = objective(None), objective(DEGRADATIONS['superres'](scale=1))
  images, key = to_float(tiny.images(4)), jax.random.key(0)
  # Enlarged by 1 they are rounded, as they are already.
  variables = none.model.init(key, images)
  losses = [
    jax.jit(x.__call__)(
      variables['params'], variables.get('codebook', {}), images, key, None
    )[0]
    for x in (none, still)
  ]
  assert losses[0] == losses[1]


def test_an_error_is_the_mean_where_it_has_a_weight():
  a, b = np.zeros((2, 1, 4, 4, 3), np.float32)
  b[0, 1, 1], b[0, 3, 3] = 0.5, 0.9
  weights = np.zeros((1, 4, 4, 1), np.float32)
  weights[0, 1, 1:3] = 1
  np.testing.assert_allclose(PIXEL_LOSSES['l1'](a, b, weights), 0.25)
  # A small hole counts as much as a large one.
  weights[0, 1, 2] = 0
  np.testing.assert_allclose(PIXEL_LOSSES['mse'](a, b, weights), 0.25)
  assert PIXEL_LOSSES['mse'](a, b, 0 * weights) == 0


def objective(degradation):
  run = from_config(tiny.config(''))
  return Objective(run.model, run.loss, None, degradation)


def test_without_a_degradation_images_are_the_inputs():
  images = to_float(tiny.images(2))
  inputs, weights = objective(None).degraded(images, jax.random.key(0))
  assert inputs is images
  assert weights is None


def test_damage_is_of_the_key_and_the_row():
  settings = DEGRADATIONS['inpaint'](mask='pixels')
  image = to_float(tiny.images(1))
  images, key = jnp.tile(image, (3, 1, 1, 1)), jax.random.key(0)
  degraded = jax.jit(objective(settings).degraded)
  inputs, weights = degraded(images, key)
  again, _ = degraded(images[:2], key)
  np.testing.assert_array_equal(inputs[:2], again)
  other, _ = degraded(images, jax.random.key(1))
  masks = [np.asarray(x[i, ..., 3]) for x in (inputs, other) for i in range(3)]
  assert len({mask.tobytes() for mask in masks}) == 6
  assert (weights[..., 0] == jnp.where(inputs[..., 3] == 1, 1, 0.1)).all()


@pytest.mark.parametrize(
  ('name', 'protocol'), [('inpaint', 'code'), ('inpaint', 'input')]
)
def test_decoders_and_discriminators_take_degraded_images(name, protocol):
  config = tiny.config('')
  section = {'name': name, 'mask': 'box', 'protocol': protocol}
  config['degradation'] = section
  config['discriminator'] = {'channels': 8, 'num_downsamples': 1}
  config['decoder'] = {
    'name': 'diffusion',
    'channels': 8,
    'multipliers': (1, 2),
    'blocks': 1,
  }
  config['loss']['weights']['diffusion'] = 1.0
  run = from_config(config)
  built = Objective(run.model, run.loss, None, run.degradation)
  assert 'diffusion' in built.check_weights(16)
  mesh = sharding.make_mesh(data=8)
  program = loop.build_program(run, built, mesh)
  fusion = 'fusion' in program.target.params['decoder']
  assert fusion == (protocol == 'input')
  state, metrics = loop.trace_step(run, mesh, program, None).out_info
  assert {'pixel', 'diffusion', 'adversarial'} < metrics.keys()
  shapes = [jax.tree.map(lambda x: x.shape, x) for x in (state, program.target)]
  assert shapes[0] == shapes[1]
