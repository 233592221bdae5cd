import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lasers_jax.errors import InputError
from lasers_jax.training.optimizer import (
  OptimizerSettings,
  learning_rate_schedule,
  make_optimizer,
  on_the_sphere,
)


@pytest.fixture
def params():
  rng = np.random.default_rng(0)
  dictionary = rng.normal(size=(4, 16))
  dictionary /= np.linalg.norm(dictionary, axis=0)
  params = {
    'bottleneck': {'dictionary': dictionary, 'codes': rng.normal(size=(8, 4))},
    'encoder': {'kernel': rng.normal(size=(3, 5)), 'bias': rng.normal(size=5)},
  }
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


def gradients(params, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params
  )


def steps(settings, params, all_gradients):
  """The parameters after each of some gradients."""
  optimizer = make_optimizer(settings, 100)
  state, history = optimizer.init(params), []
  update = jax.jit(optimizer.update)
  for gradient in all_gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    history.append(params)
  return history


@pytest.mark.parametrize('accumulate', [1, 2])
def test_atoms_keep_norm_one(params, accumulate):
  settings = OptimizerSettings(
    dictionary_learning_rate=0.1, accumulate=accumulate
  )
  history = steps(settings, params, [gradients(params, i) for i in range(20)])
  for p in history:
    atoms = np.float64(p['bottleneck']['dictionary'])
    norms = np.linalg.norm(atoms, axis=0)
    np.testing.assert_allclose(norms, 1, atol=1e-6)
  first = params['bottleneck']['dictionary']
  assert np.abs(history[-1]['bottleneck']['dictionary'] - first).max() > 0.1


def test_the_gradient_of_atoms_is_tangent(params):
  atoms = params['bottleneck']['dictionary']
  seen = []

  def record(updates, state, params):
    seen.append(updates)
    return updates, state

  inner = optax.GradientTransformation(lambda _: optax.EmptyState(), record)
  sphere = on_the_sphere(inner)
  gradient = gradients(params, 1)['bottleneck']['dictionary']
  sphere.update(gradient, sphere.init(atoms), atoms)
  atoms, tangent = np.asarray(atoms), np.asarray(seen[0])
  radial = np.sum(tangent * atoms, axis=0)
  np.testing.assert_allclose(radial, 0, atol=1e-6)
  # What is taken off is radial, and nothing else.
  off = np.asarray(gradient) - tangent
  along = np.sum(off * atoms, axis=0)
  np.testing.assert_allclose(off, atoms * along, atol=1e-6)


def test_a_radial_gradient_moves_no_atom(params):
  gradient = jax.tree.map(jnp.zeros_like, params)
  atoms = params['bottleneck']['dictionary']
  gradient['bottleneck']['dictionary'] = 3 * atoms
  sgd = on_the_sphere(optax.sgd(0.1))
  updates, _ = sgd.update(
    gradient['bottleneck']['dictionary'], sgd.init(atoms), atoms
  )
  np.testing.assert_allclose(updates, 0, atol=1e-6)


def test_weights_follow_adam(params):
  gradient = gradients(params, 2)
  (after,) = steps(OptimizerSettings(learning_rate=0.1), params, [gradient])
  # The first step of Adam is the sign of the gradient.
  expected = params['encoder']['kernel'] - 0.1 * np.sign(
    gradient['encoder']['kernel']
  )
  np.testing.assert_allclose(after['encoder']['kernel'], expected, atol=1e-5)


def test_clipping_bounds_the_norm_of_the_networks_gradient(params):
  # Adam hides the size of one gradient; two of unlike sizes show it.
  small, large = gradients(params, 3), gradients(params, 4)
  large = jax.tree.map(lambda g: 1000 * g, large)
  networks = {**large, 'bottleneck': {'codes': large['bottleneck']['codes']}}
  norm = optax.tree.norm(networks)
  clipped = jax.tree.map(lambda g: g / norm, large)
  small = jax.tree.map(lambda g: 0.01 * g, small)
  a = steps(OptimizerSettings(clip=1.0), params, [small, large])[-1]
  b = steps(OptimizerSettings(clip=0.0), params, [small, clipped])[-1]
  c = steps(OptimizerSettings(clip=0.0), params, [small, large])[-1]
  np.testing.assert_allclose(
    a['encoder']['kernel'], b['encoder']['kernel'], atol=1e-6
  )
  assert np.abs(a['encoder']['kernel'] - c['encoder']['kernel']).max() > 1e-5
  # The dictionary's own gradient takes no part.
  np.testing.assert_array_equal(
    a['bottleneck']['dictionary'], c['bottleneck']['dictionary']
  )


def test_accumulation_steps_once_with_the_mean(params):
  g, h = gradients(params, 5), gradients(params, 6)
  mean = jax.tree.map(lambda a, b: (a + b) / 2, g, h)
  half, full = steps(OptimizerSettings(accumulate=2), params, [g, h])
  (expected,) = steps(OptimizerSettings(), params, [mean])
  jax.tree.map(np.testing.assert_array_equal, half, params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), full, expected
  )


def test_warmup_and_cosine():
  settings = OptimizerSettings(warmup=10, final=0.1)
  rate = learning_rate_schedule(settings, 2.0, 110)
  expected = {
    0: 0.0,
    5: 1.0,
    10: 2.0,
    35: 0.2 + 1.8 * 0.5 * (1 + np.cos(np.pi / 4)),
    60: 0.2 + 1.8 * 0.5,
    110: 0.2,
    200: 0.2,
  }
  for step, value in expected.items():
    np.testing.assert_allclose(rate(step), value, rtol=1e-5, err_msg=step)


@pytest.mark.parametrize('warmup', [0, 3])
def test_a_rate_that_stays_is_one_program_for_any_steps(warmup):
  settings = OptimizerSettings(warmup=warmup, final=1.0)
  rates = [learning_rate_schedule(settings, 0.1, steps) for steps in (5, 900)]
  programs = [str(jax.make_jaxpr(rate)(jnp.int32(0))) for rate in rates]
  assert programs[0] == programs[1]
  # As the cosine has it that decays to the whole of the rate, bit for bit.
  cosine = optax.warmup_cosine_decay_schedule(
    0.0 if warmup else 0.1, 0.1, warmup, 900, 0.1
  )
  for step in 0, 1, 2, 3, 4, 899:
    assert rates[0](step) == cosine(step)


def test_without_warmup_the_first_step_is_full():
  assert learning_rate_schedule(OptimizerSettings(), 2.0, 10)(0) == 2.0


def test_the_schedule_counts_updates_not_batches():
  rate = learning_rate_schedule(OptimizerSettings(accumulate=4), 1.0, 40)
  np.testing.assert_allclose(rate(10), 0, atol=1e-7)
  np.testing.assert_allclose(rate(5), 0.5, rtol=1e-6)


def test_adamw_decays_kernels_only(params):
  nothing = jax.tree.map(jnp.zeros_like, params)
  settings = OptimizerSettings(
    name='adamw', learning_rate=0.1, weight_decay=0.5
  )
  (after,) = steps(settings, params, [nothing])
  np.testing.assert_allclose(
    after['encoder']['kernel'], 0.95 * params['encoder']['kernel'], rtol=1e-6
  )
  del after['encoder']['kernel'], params['encoder']['kernel']
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, params
  )


def test_bad_settings_are_refused():
  with pytest.raises(InputError, match="one of .*'adam', 'adamw'.*: 'sgd'"):
    OptimizerSettings(name='sgd')
