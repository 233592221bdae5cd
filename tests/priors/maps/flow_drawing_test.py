"""What flow matching on maps draws, held against oracles and a toy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lasers_jax.core.sharding import batch_sharding, make_mesh, replicated
from lasers_jax.diffusion import SOLVERS, Straight
from lasers_jax.errors import InputError
from lasers_jax.priors.maps.base import Known
from lasers_jax.priors.maps.flow import Flow, FlowDrawing, guided
from tests.priors.maps.flows import (
  KEYS,
  LABELS,
  SIZES,
  SMALL,
  Oracle,
  draw,
  fit,
  latents,
  start,
  statistics,
)

# By one call of the network a step, which compiles fast.
GUIDED = FlowDrawing(guidance=2.0, solver='ddim', steps=4)


@pytest.mark.parametrize('steps', [1, 2, 25])
@pytest.mark.parametrize('solver', SOLVERS)
@pytest.mark.parametrize(
  'fields', [{}, {'predict': 'x'}, {'shift': 3.0, 'normalise': 'pca'}], ids=str
)
def test_an_oracle_gives_the_latents_back(fields, solver, steps):
  oracle = Oracle(**SIZES, **fields)
  variables = statistics(oracle, latents())
  drawing = FlowDrawing(solver=solver, steps=steps)
  found = draw(oracle, variables, KEYS[:2], LABELS[:2], drawing)
  expected = np.tile(latents(1), (2, 1, 1, 1))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def linear(calls, x, t, labels):
  """A network that is linear in x, the time and the label."""
  jax.debug.callback(lambda *_: calls.append(len(x)), t, ordered=True)
  weights = jnp.arange(1.0, 6.0)[None]
  return 0.5 * x + t + labels[:, None] * weights


def guide(guidance, time, **settings):
  """What guidance makes of five channels, and the batches of the calls."""
  calls, drawing = [], FlowDrawing(guidance=guidance, **settings)
  x = jax.random.normal(jax.random.key(0), (3, 5))
  labels = jnp.array([1, 2, 3], jnp.int32)
  network = functools.partial(linear, calls)
  denoise = guided(network, Straight(), labels, 7, drawing)
  found = jax.jit(denoise)(x, jnp.float32(time))
  jax.effects_barrier()
  label = labels + (guidance - 1) * (labels - 7)
  expected = linear([], x, time, label)
  return found, expected, linear([], x, time, labels), calls


@pytest.mark.parametrize('guidance', [0.0, 1.5, 4.0])
def test_all_channels_are_guided(guidance):
  found, expected, _, calls = guide(guidance, 0.5)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert calls == [6]


@pytest.mark.parametrize('time', [0.0, 0.05, 0.95, 1.0])
def test_no_guidance_outside_its_interval(time):
  found, guided, plain, calls = guide(3.0, time)
  np.testing.assert_allclose(found, plain, rtol=1e-6)
  assert np.abs(found - guided).max() > 1
  assert calls == [3]
  found, guided, _, calls = guide(3.0, time, interval_low=0, interval_high=1)
  np.testing.assert_allclose(found, guided, rtol=1e-5)
  assert calls == [6]


def test_without_guidance_the_network_is_called_once():
  found, _, plain, calls = guide(1.0, 0.5)
  np.testing.assert_allclose(found, plain, rtol=1e-6)
  assert calls == [3]


def test_draws_are_guided_by_the_class():
  variables = start(SMALL)
  plain = FlowDrawing(solver='ddim', steps=4)
  none = jnp.full_like(LABELS, 5)
  by_class, by_none = (
    draw(SMALL, variables, KEYS, labels, plain) for labels in (LABELS, none)
  )
  found = draw(SMALL, variables, KEYS, LABELS, GUIDED)
  for other in (by_class, by_none):
    away = np.abs(found - other)
    assert away.max() > 0.01
    assert (away.max(axis=0) > 1e-4).all()  # at every site and channel
  assert np.abs(by_class - by_none).max() > 0.01
  of_none = draw(SMALL, variables, KEYS, none, GUIDED)
  np.testing.assert_allclose(of_none, by_none, rtol=1e-4, atol=1e-4)


def test_draws_do_not_depend_on_the_batch():
  variables = start(SMALL)
  found = np.asarray(draw(SMALL, variables, KEYS, LABELS, GUIDED))
  for rows in np.array([5, 0]), np.array([3, 6, 1, 0, 2, 7, 5, 4]):
    own = draw(SMALL, variables, KEYS[rows], LABELS[rows], GUIDED)
    np.testing.assert_allclose(own, found[rows], rtol=1e-4, atol=1e-4)
  assert np.abs(np.diff(found, axis=0)).max(axis=(1, 2, 3)).min() > 0.1
  # Noise is of the image, and not of the class.
  same = found[np.ravel(LABELS) == 0]
  assert np.abs(np.diff(same, axis=0)).max() > 0.1


def test_draws_on_eight_devices_are_those_on_one():
  variables = start(SMALL)
  found = draw(SMALL, variables, KEYS, LABELS, GUIDED)
  mesh = make_mesh()
  variables = jax.device_put(variables, replicated(mesh))
  keys, labels = jax.device_put((KEYS, LABELS), batch_sharding(mesh))
  split = draw(SMALL, variables, keys, labels, GUIDED)
  assert len(split.sharding.device_set) == 8
  np.testing.assert_allclose(split, found, rtol=1e-4, atol=1e-4)


# Two modes of a class each: +pattern and -pattern, with noise.
PATTERN = np.array([[1.2, 0.4], [0.8, -0.6]])[..., None] * np.array(
  [1, 2, -1.5]
)
TOY = Flow(
  sites=(2, 2),
  D=3,
  classes=2,
  width=32,
  layers=2,
  heads=2,
  label_dropout=0.3,
)


def modes(n, seed):
  rng = np.random.default_rng(seed)
  labels = rng.integers(2, size=n).astype(np.int32)
  signs = (2.0 * labels - 1)[:, None, None, None]
  noise = 0.2 * rng.standard_normal((n, 2, 2, 3))
  return (5 + signs * PATTERN + noise).astype(np.float32), labels


@pytest.fixture(scope='module')
def trained():
  view, labels = modes(2048, 0)
  optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 500))
  init = jax.jit(functools.partial(TOY.init, train=False))
  variables = fit(init(jax.random.key(0), view[:1], labels[:1]), TOY, view)

  def loss(params, key):
    rows = jax.random.randint(key, (64,), 0, len(view))
    losses, _ = TOY.apply(
      {**variables, 'params': params},
      jnp.asarray(view)[rows],
      jnp.asarray(labels)[rows],
      True,
      rngs={'prior': key},
    )
    return jnp.mean(losses)

  def step(state, key):
    params, moments = state
    value, gradient = jax.value_and_grad(loss)(params, key)
    change, moments = optimizer.update(gradient, moments)
    return (optax.apply_updates(params, change), moments), value

  @jax.jit
  def train(params):
    keys = jax.random.split(jax.random.key(2), 500)
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)

  (params, _), losses = train(variables['params'])
  return {**variables, 'params': params}, np.asarray(losses)


def test_a_flow_learns_two_modes(trained):
  variables, losses = trained
  assert losses[0] == pytest.approx(2, abs=0.3)
  assert losses[-50:].mean() < 0.5
  keys = jax.random.split(jax.random.key(3), 200)
  labels = jnp.arange(200, dtype=jnp.int32) % 2
  found = draw(TOY, variables, keys, labels, FlowDrawing(steps=10))
  signs = (2.0 * labels - 1)[:, None, None, None]
  away = np.asarray(found) - (5 + signs * PATTERN[None])
  assert np.sqrt(np.mean(away**2)) < 0.4
  nearest = np.sign(np.mean((np.asarray(found) - 5) * PATTERN, (1, 2, 3)))
  np.testing.assert_array_equal(nearest, np.ravel(signs))


def test_without_a_class_both_modes_are_drawn(trained):
  keys = jax.random.split(jax.random.key(3), 200)
  none = jnp.full((200,), 2, jnp.int32)
  found = draw(TOY, trained[0], keys, none, FlowDrawing(steps=10))
  place = np.mean((np.asarray(found) - 5) * PATTERN, (1, 2, 3))
  place /= np.mean(PATTERN**2)
  assert 0.3 < np.mean(place > 0) < 0.7
  assert np.mean(np.abs(place) > 0.5) > 0.8


def test_known_sites_are_refused():
  known = Known(latents(8), jnp.ones((8, 4, 2), bool))
  with pytest.raises(InputError, match='complete maps .* masked and ar can'):
    SMALL.apply(start(SMALL), KEYS, LABELS, GUIDED, known, method='draw')


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'solver': 'euler'}, "drawing.solver is 'euler': .* one of ddim, heun"),
    ({'steps': 0}, 'steps is 0: .* at least 1'),
    ({'interval_low': 0.9}, 'interval_low=0.9 must be less .*high=0.9'),
  ],
)
def test_bad_drawings_are_refused(fields, message):
  with pytest.raises(InputError, match=message):
    FlowDrawing(**fields)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'classes': 0}, 'guidance=2.0 needs a prior of labelled images'),
    ({'label_dropout': 0.0}, 'guidance=2.0 needs .*label_dropout above 0'),
  ],
)
def test_guidance_that_was_not_trained_is_refused(fields, message):
  flow = SMALL.clone(**fields)
  flow.check_drawing(FlowDrawing())
  with pytest.raises(InputError, match=message):
    flow.check_drawing(FlowDrawing(guidance=2.0))
