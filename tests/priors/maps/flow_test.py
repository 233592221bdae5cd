"""What flow matching on maps learns, held against oracles and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lasers_jax.diffusion import Straight
from lasers_jax.errors import InputError
from lasers_jax.priors.maps.flow import Flow, FlowDrawing
from tests.priors.maps.flows import (
  KEYS,
  LABELS,
  SIZES,
  SMALL,
  Oracle,
  latents,
  losses_at,
  start,
  statistics,
)

TIMES = jnp.linspace(0.1, 0.9, 8)


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
    lambda *x: half.apply(*x, FlowDrawing(), method='draw'),
    variables,
    KEYS,
    LABELS,
  )
  assert drawn.dtype == jnp.float32
  found, expected = (
    losses_at(flow, variables, view, LABELS, TIMES, KEYS)
    for flow in (half, SMALL)
  )
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, expected, rtol=0.1)


def test_it_has_no_bits():
  assert Flow.EXACT is None
  with pytest.raises(NotImplementedError):
    SMALL.bits(latents(1), LABELS[:1])


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
