"""Flow matching on maps, held against oracles, NumPy and a toy."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from lasers_jax.core.sharding import batch_sharding, make_mesh, replicated
from lasers_jax.diffusion import SOLVERS, Straight
from lasers_jax.errors import InputError
from lasers_jax.priors.maps.base import Known
from lasers_jax.priors.maps.flow import Flow, FlowDrawing, guided

SIZES = {'sites': (4, 2), 'D': 3, 'width': 16, 'layers': 2, 'heads': 2}
SMALL = Flow(classes=5, **SIZES)
KEYS = jax.random.split(jax.random.key(7), 8)
LABELS = jnp.arange(8, dtype=jnp.int32) % 5
TIMES = jnp.linspace(0.1, 0.9, 8)
# By one call of the network a step, which compiles fast.
GUIDED = FlowDrawing(guidance=2.0, solver='ddim', steps=4)
MIXING = np.array([[2.0, 0.5, 0], [0, 1, -0.3], [0.1, 0, 0.05]])


def latents(n=400, seed=0):
  """Correlated channels of unlike scales and means: [n, 4, 2, 3]."""
  x = np.random.default_rng(seed).standard_normal((n, 4, 2, 3))
  return (x @ MIXING + [40, -1, 0.2]).astype(np.float32)


@functools.cache
def start(flow):
  """Variables that normalise latents, with no parameter at 0."""

  @jax.jit
  def noisy(view):
    labels = jnp.zeros((1,), jnp.int32)
    variables = flow.init(jax.random.key(0), view, labels, train=False)
    flat, unflatten = jax.flatten_util.ravel_pytree(variables['params'])
    flat += 0.2 * jax.random.normal(jax.random.key(1), flat.shape)
    return {**variables, 'params': unflatten(flat)}

  return fit(noisy(latents(1)), flow, latents())


def fit(variables, flow, view):
  _, found = flow.apply(
    variables, view, method='initialize', mutable=['params', 'codebook']
  )
  return {**variables, **found}


@functools.partial(jax.jit, static_argnums=(0, 4))
def draw(flow, variables, keys, labels, drawing):
  return flow.apply(variables, keys, labels, drawing, method='draw')


@functools.partial(jax.jit, static_argnums=0)
def losses_at(flow, variables, view, labels, times, keys):
  return flow.apply(variables, view, labels, times, keys, method='losses_at')


def statistics(flow, view):
  """The variables of normalisation alone: all that `normalized` reads."""
  codebook = {
    'mean': jnp.zeros(flow.D),
    'whitening': jnp.eye(flow.D),
    'coloring': jnp.eye(flow.D),
  }
  return fit({'codebook': codebook}, flow, view)


@pytest.mark.parametrize('normalise', ['channel', 'pca'])
def test_latents_are_normalised_exactly(normalise):
  flow, view = SMALL.clone(normalise=normalise), latents()
  variables = statistics(flow, view)
  x = np.float64(flow.apply(variables, view, method='normalized'))
  rows = x.reshape(-1, 3)
  np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
  covariance = np.cov(rows.T, bias=True)
  np.testing.assert_allclose(covariance.diagonal(), 1, atol=1e-5)
  correlated = np.abs(covariance - np.eye(3)).max()
  assert correlated < 1e-4 if normalise == 'pca' else correlated > 0.1
  back = flow.apply(variables, x, method='denormalized')
  assert back.dtype == jnp.float32
  # The mean of 40 has a rounding of its own.
  np.testing.assert_allclose(back, view, rtol=1e-6, atol=1e-6)


def test_channels_are_scaled_by_their_own_deviation():
  view = latents()
  x = SMALL.apply(statistics(SMALL, view), view, method='normalized')
  exact = np.float64(view)
  expected = (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
  np.testing.assert_allclose(x, expected, atol=1e-4)


@pytest.mark.parametrize('normalise', ['channel', 'pca'])
@pytest.mark.parametrize('constant', [0.0, 0.1, 1e6])
def test_what_never_changes_stays_at_its_mean(normalise, constant):
  flow, view = SMALL.clone(normalise=normalise), latents()
  view[..., 1] = constant
  variables = statistics(flow, view)
  noise = jax.random.normal(jax.random.key(0), view.shape)
  drawn = np.asarray(flow.apply(variables, noise, method='denormalized'))
  np.testing.assert_array_equal(drawn[..., 1], np.float32(constant))
  assert drawn[..., 0].std() > 1
  x = flow.apply(variables, view, method='normalized')
  back = flow.apply(variables, x, method='denormalized')
  np.testing.assert_allclose(back, view, rtol=1e-6, atol=1e-5)


def test_directions_that_depend_on_others_are_left_out():
  flow, view = SMALL.clone(normalise='pca'), latents()
  view[..., 2] = view[..., 0] + view[..., 1]
  variables = statistics(flow, view)
  x = flow.apply(variables, view, method='normalized')
  assert (np.asarray(x).std((0, 1, 2)) > 0.5).sum() == 2
  noise = jax.random.normal(jax.random.key(0), view.shape)
  drawn = flow.apply(variables, noise, method='denormalized')
  np.testing.assert_allclose(
    drawn[..., 2], drawn[..., 0] + drawn[..., 1], atol=1e-4
  )


class Oracle(Flow):
  """Knows the latents: those of `view`, which is all there is."""

  def _output(self, mixed, times, labels, train=False):
    x = jnp.tile(self.normalized(latents(1)), (len(mixed), 1, 1, 1))
    if self.predict == 'x':
      return x
    _, level = self.path(times[:, None, None, None])
    return (mixed - x) / level


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


@pytest.mark.parametrize('predict', ['v', 'x'])
def test_an_oracle_has_no_loss(predict):
  oracle = Oracle(**SIZES, predict=predict)
  view = np.tile(latents(1), (8, 1, 1, 1))
  times = jnp.linspace(0.01, 1, 8)
  found = losses_at(
    oracle, statistics(oracle, latents()), view, LABELS, times, KEYS
  )
  np.testing.assert_allclose(found, 0, atol=1e-6)


@pytest.mark.parametrize('predict', ['v', 'x'])
def test_the_loss_is_that_of_the_velocity(predict):
  """With an output of 0, as at the start."""
  flow = SMALL.clone(predict=predict)
  view, variables = latents(8), start(flow)
  closed = jax.tree.map(jnp.zeros_like, variables['params']['to_output'])
  params = {**variables['params'], 'to_output': closed}
  variables = {**variables, 'params': params}
  times = jnp.array([0.001, 0.03, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0])
  found = losses_at(flow, variables, view, LABELS, times, KEYS)
  exact = np.float64(latents())
  x = (np.float64(view) - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
  noise = jnp.stack([jax.random.normal(key, (4, 2, 3)) for key in KEYS])
  t = np.maximum(np.float64(times), 0.05)[:, None, None, None]
  error = x / t if predict == 'x' else np.float64(noise) - x
  np.testing.assert_allclose(found, (error**2).mean((1, 2, 3)), rtol=1e-4)


def test_predicted_latents_are_those_of_the_predicted_velocity():
  variables = start(SMALL)
  x, t = jax.random.normal(jax.random.key(0), (8, 4, 2, 3)), TIMES

  def run(flow, method):
    call = jax.jit(functools.partial(flow.apply, method=method))
    return call(variables, x, t, LABELS)

  v = run(SMALL, '_output')
  found = run(SMALL, 'estimate')
  np.testing.assert_allclose(found, x - t[:, None, None, None] * v, atol=1e-5)
  other = run(SMALL.clone(predict='x'), 'estimate')
  np.testing.assert_allclose(other, v, atol=1e-6)


def test_a_shift_changes_the_times_and_nothing_else():
  variables, view = start(SMALL), latents(8)
  shifted = SMALL.clone(shift=3.0)
  found = losses_at(shifted, variables, view, LABELS, TIMES, KEYS)
  _, levels = Straight(3.0)(TIMES)
  expected = losses_at(SMALL, variables, view, LABELS, levels, KEYS)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  same = losses_at(SMALL, variables, view, LABELS, TIMES, KEYS)
  assert np.abs(same - expected).max() > 0.01


class Telling(Flow):
  """Errs by the time and ten times the label: the loss tells them."""

  def _output(self, mixed, times, labels, train=False):
    # The latents are 0, and 0 is what they are normalised to.
    noise = mixed / times[:, None, None, None]
    return noise + (times + 10 * labels)[:, None, None, None]


def told(flow, n, train):
  view = jnp.zeros((n, 1, 1, 1))
  variables = statistics(flow, np.zeros((2, 1, 1, 1), np.float32))
  keys = {'prior': jax.random.key(0)}
  losses, _ = flow.apply(
    variables, view, jnp.full(n, 2, jnp.int32), train, rngs=keys
  )
  seen = np.sqrt(np.float64(losses))
  return seen % 10, np.floor(seen / 10)


def test_times_are_logit_normal():
  times, labels = told(Telling(D=1, classes=4), 2000, False)
  logits = np.log(times / (1 - times))
  assert scipy.stats.kstest(logits, 'norm').pvalue > 0.01
  np.testing.assert_array_equal(labels, 2)


def test_a_share_of_labels_is_dropped_in_training():
  flow = Telling(D=1, classes=4, label_dropout=0.2)
  _, labels = told(flow, 2000, True)
  assert set(labels) == {2, 4}
  assert np.mean(labels == 4) == pytest.approx(0.2, abs=0.03)
  for never in (flow.clone(label_dropout=0.0), flow.clone(classes=0)):
    assert set(told(never, 50, True)[1]) == {2}


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


def test_held_out_losses_are_of_each_image():
  variables, view = start(SMALL), latents(8)
  found = losses_at(SMALL, variables, view, LABELS, TIMES, KEYS)
  order = np.array([3, 6, 1, 0, 2, 7, 5, 4])
  moved = (x[order] for x in (view, LABELS, TIMES, KEYS))
  moved = losses_at(SMALL, variables, *moved)
  np.testing.assert_allclose(moved, found[order], rtol=1e-4)
  again = losses_at(SMALL, variables, view, LABELS, TIMES, KEYS)
  np.testing.assert_array_equal(found, again)


def test_the_network_knows_rows_columns_times_and_classes():
  variables = start(SMALL)
  x = jax.random.normal(jax.random.key(0), (1, 4, 2, 3))
  run = jax.jit(
    lambda x, t, label: SMALL.apply(
      variables,
      x,
      jnp.full((1,), t),
      jnp.full((1,), label),
      method='_output',
    )
  )
  found = run(x, 0.5, 1)
  assert found.shape == x.shape
  for axis in (1, 2):
    flipped = jnp.flip(run(jnp.flip(x, axis), 0.5, 1), axis)
    assert np.abs(flipped - found).max() > 0.01
  assert np.abs(run(x, 0.6, 1) - found).max() > 0.01
  assert np.abs(run(x, 0.5, 5) - found).max() > 0.01


def test_sites_know_their_place_where_all_are_alike():
  variables, x = start(SMALL), jnp.zeros((1, 4, 2, 3))
  run = jax.jit(functools.partial(SMALL.apply, variables, method='_output'))
  found = run(x, jnp.ones((1,)), jnp.zeros((1,), jnp.int32))
  sites = np.asarray(found).reshape(8, 3)
  apart = np.abs(sites[:, None] - sites[None]).max(axis=-1)
  assert apart[~np.eye(8, dtype=bool)].min() > 1e-3


def test_patches_are_tokens():
  flow = SMALL.clone(patch=2)
  variables = start(flow)
  assert variables['params']['embed']['kernel'].shape == (12, 16)
  assert variables['params']['to_output']['kernel'].shape == (16, 12)
  # One site moves the output at all sites, those of its own patch too.
  x = jnp.zeros((1, 4, 2, 3))
  run = jax.jit(functools.partial(flow.apply, variables, method='_output'))
  rest = jnp.zeros((1,)), jnp.zeros((1,), jnp.int32)
  moved = run(x.at[0, 3, 1, 0].set(1.0), *rest) - run(x, *rest)
  assert (np.abs(moved).max(axis=-1) > 0).all()


def test_activations_of_half_the_bits():
  variables, view = start(SMALL), latents(8)
  half = SMALL.clone(dtype=jnp.bfloat16)
  drawn = jax.eval_shape(
    lambda *x: half.apply(*x, GUIDED, method='draw'), variables, KEYS, LABELS
  )
  assert drawn.dtype == jnp.float32
  found, expected = (
    losses_at(flow, variables, view, LABELS, TIMES, KEYS)
    for flow in (half, SMALL)
  )
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, expected, rtol=0.1)


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


def test_it_has_no_bits():
  assert Flow.EXACT is None
  with pytest.raises(NotImplementedError):
    SMALL.bits(latents(1), LABELS[:1])


def test_known_sites_are_refused():
  known = Known(latents(8), jnp.ones((8, 4, 2), bool))
  with pytest.raises(InputError, match='complete maps .* masked and ar can'):
    SMALL.apply(start(SMALL), KEYS, LABELS, GUIDED, known, method='draw')


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'normalise': 'pcb'}, r"prior.normalise is 'pcb': did you mean pca\?"),
    ({'predict': 'noise'}, "prior.predict is 'noise': it must be one of v, x"),
    ({'patch': 3}, 'prior.patch=3 must divide .* which are 4x2'),
    ({'shift': 0.0}, 'shift is 0.0: it must be .* more than 0'),
  ],
)
def test_bad_fields_are_refused(fields, message):
  with pytest.raises(InputError, match=message):
    SMALL.clone(**fields).check()


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
