import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.priors.maps import masked
from lasers_jax.priors.maps.base import Known
from lasers_jax.priors.maps.layout import Layout
from lasers_jax.priors.maps.masked import Masked, MaskedDrawing
from tests.priors.maps import small

LAYOUT = Layout((1, 3), (2, 2))
T = 3
CODES = small.all_codes(LAYOUT)  # 64
# Of three sites, all that may be masked: bit j is that of site j.
MASKS = np.array(list(itertools.product([False, True], repeat=T)))[:, ::-1]


@pytest.fixture(scope='module')
def model():
  return small.prior(Masked, LAYOUT)


@pytest.fixture(scope='module')
def nats(model):
  """-ln p of each site, if masked with others: [code, mask, site]."""
  model, variables = model
  codes = np.repeat(CODES, len(MASKS), axis=0)
  masks = np.tile(MASKS, (len(CODES), 1))
  labels = jnp.ones(len(codes), jnp.int32)
  each, _ = jax.jit(
    lambda: model.apply(variables, codes, labels, masks, False, method='_nats')
  )()
  return np.asarray(each).sum(-1).reshape(len(CODES), len(MASKS), T)


def number(sites):
  return sum(1 << site for site in sites)


def log_p(nats, orders):
  """ln p of all codes, the mean of p over orders of the sites."""
  parts = []
  for order in orders:
    steps = range(T)
    each = [nats[:, number(order[i:]), order[i]] for i in steps]
    parts.append(np.exp(-np.sum(each, axis=0, dtype=np.float64)))
    assert parts[-1].sum() == pytest.approx(1, abs=1e-5)
  return np.log(np.mean(parts, axis=0))


def test_masked_sites_are_not_seen(nats):
  codes = CODES.reshape(64, T, 2)
  for j, m in itertools.product(range(T), range(len(MASKS))):
    if not MASKS[m, j]:
      continue
    seen = [tuple(codes[i][~MASKS[m]].ravel()) for i in range(64)]
    own = [tuple(codes[i, j]) for i in range(64)]
    groups = {}
    for i in range(64):
      groups.setdefault((seen[i], own[i]), []).append(nats[i, m, j])
    for values in groups.values():
      assert np.ptp(values) < 1e-5
    values = np.array([x[0] for x in groups.values()])
    if m not in (7, 1 << j):
      assert np.ptp(values) > 1e-2


def test_the_bound_is_above_the_exact_bits(model, nats):
  model, variables = model
  exact = -log_p(nats, list(itertools.permutations(range(T)))) / np.log(2)
  bound = np.zeros(64)
  for k in range(1, T + 1):
    masks = [m for m in range(8) if MASKS[m].sum() == k]
    sums = [nats[:, m][:, MASKS[m]].sum(1) for m in masks]
    bound += np.mean(sums, axis=0) * T / k / T / np.log(2)
  assert np.all(bound >= exact - 1e-5)
  assert np.max(bound - exact) > 1e-2
  n, code = 20_000, 17
  view = jnp.asarray(np.repeat(CODES[code : code + 1], n, axis=0))
  bits = jax.jit(
    lambda key: model.apply(
      variables, view, jnp.ones(n, 'i4'), method='bits', rngs={'prior': key}
    )
  )(jax.random.key(0))
  samples = np.sum(np.asarray(bits), axis=(1, 2, 3), dtype=np.float64)
  error = samples.std() / np.sqrt(n)
  assert samples.mean() == pytest.approx(bound[code], abs=4 * error)
  hidden = np.asarray(bits).reshape(n, T, 2).all(-1)
  shares = np.bincount(hidden.sum(1), minlength=4) / n
  np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.02)


def test_the_loss_is_that_of_masked_sites(model, nats):
  model, variables = model
  n, code = 20_000, 17
  view = jnp.asarray(np.repeat(CODES[code : code + 1], n, axis=0))
  loss, stats = jax.jit(
    lambda key: model.apply(
      variables, view, jnp.ones(n, 'i4'), False, rngs={'prior': key}
    )
  )(jax.random.key(0))
  each = [nats[code, m][MASKS[m]].mean() / np.log(2) for m in range(1, 8)]
  gaps = np.abs(np.asarray(loss)[:, None] - np.array(each)[None])
  assert gaps.min(1).max() < 1e-4
  # cos(πr/2) T rounds to 3 where it is above 5/6, to 2 above 1/2.
  found = np.bincount(MASKS[1:].sum(1)[gaps.argmin(1)], minlength=4) / n
  ends = np.arccos(np.array([1, 5 / 6, 1 / 2, 0])) * 2 / np.pi
  np.testing.assert_allclose(found[:0:-1], np.diff(ends), atol=0.015)
  assert float(stats['bits']) == pytest.approx(float(loss.mean()), rel=1e-5)


@functools.cache
def _draw(drawing):
  model, variables = small.prior(Masked, LAYOUT)
  return jax.jit(
    lambda keys, labels, known: model.apply(
      variables, keys, labels, drawing, known, method='draw'
    )
  )


def draw(n, drawing, known=None, seed=0):
  keys = jax.random.split(jax.random.key(seed), n)
  return _draw(drawing)(keys, jnp.ones(n, jnp.int32), known)


def test_draws_follow_the_model(nats):
  # More steps than sites are as many as sites.
  found = draw(40_000, MaskedDrawing(steps=50))
  ranks = masked.halton_ranks(1, T)
  order = np.argsort(ranks)
  p = np.exp(log_p(nats, [np.roll(order, i) for i in range(T)]))
  assert small.chi_square(small.counts(found, CODES), p) > 1e-3


def test_one_step_draws_all_sites_apart(nats):
  found = draw(40_000, MaskedDrawing(steps=1))
  p = np.exp(-nats[:, 7].sum(1, dtype=np.float64))
  assert p.sum() == pytest.approx(1, abs=1e-5)
  assert small.chi_square(small.counts(found, CODES), p) > 1e-3


def test_the_most_confident_are_drawn_first(nats):
  drawing = MaskedDrawing(
    steps=T, order='confidence', choice_temperature=0.0, top_k=1
  )
  found = draw(3, drawing)
  codes = CODES.reshape(64, T, 2)
  sites, fixed = list(range(T)), np.ones(64, bool)
  while sites:
    # Plane by plane, the likeliest of what is left: as p of a site's events.
    best = {}
    for j in sites:
      rows = np.flatnonzero(fixed)
      p = {tuple(codes[i, j]): nats[i, number(sites), j] for i in rows}
      first = {a: np.logaddexp(-p[a, 0], -p[a, 1]) for a in (0, 1)}
      a = max(first, key=first.get)
      b = min((0, 1), key=lambda b: p[a, b])
      best[j] = p[a, b], (a, b)
    j = min(sites, key=lambda j: best[j][0])
    fixed &= np.all(codes[:, j] == best[j][1], axis=1)
    sites.remove(j)
  assert fixed.sum() == 1
  for one in np.asarray(found):
    np.testing.assert_array_equal(one, CODES[fixed][0])


@pytest.mark.parametrize('order', masked.ORDERS)
def test_an_image_depends_on_its_own_key(order):
  drawing = MaskedDrawing(steps=2, order=order, guidance=2.0)
  keys = jax.random.split(jax.random.key(3), 7)
  labels = jnp.arange(7, dtype=jnp.int32) % 4
  together = _draw(drawing)(keys, labels, None)
  order = np.array([5, 0, 0, 2, 2, 5, 1])
  again = _draw(drawing)(keys[order], labels[order], None)
  np.testing.assert_array_equal(again, together[order])
  assert len(np.unique(together.reshape(7, -1), axis=0)) > 1
  assert np.all((together >= 0) & (together < 2))


def test_known_sites_are_kept_and_seen(nats):
  n = 20_000
  view = np.zeros((n, 1, T, 2), np.int32)
  view[:, 0, 1] = 0, 1
  sites = np.zeros((n, 1, T), bool)
  sites[:, 0, 1] = True
  known = Known(jnp.asarray(view), jnp.asarray(sites))
  found = draw(n, MaskedDrawing(steps=1), known)
  np.testing.assert_array_equal(found[sites], view[sites])
  codes = np.flatnonzero(np.all(CODES[:, 0, 1] == [0, 1], axis=1))
  p = np.exp(-nats[codes, 5][:, [0, 2]].sum(1, dtype=np.float64))
  assert small.chi_square(small.counts(found, CODES[codes]), p) > 1e-3
  everything = Known(known.view, jnp.ones_like(known.sites))
  found = draw(n, MaskedDrawing(steps=1), everything)
  np.testing.assert_array_equal(found, view)


def test_each_step_draws_and_all_sites_are_drawn():
  sites = np.array([64, 5, 0])
  for steps in range(1, 65):
    # Of one shape: steps after the last one draw nothing.
    after = np.minimum(np.arange(65), steps)
    left = masked.masked_after(after[:, None], steps, sites[None])
    new = -np.diff(left, axis=0)
    np.testing.assert_array_equal(new.sum(0), sites)
    assert np.all(new[:steps, 0] >= 1)
    assert np.all(new >= 0)
  # MaskGIT's cosine: most sites come late.
  late = masked.masked_after(np.arange(1, 5), 4, np.array([100]))
  assert late.tolist() == [92, 70, 38, 0]


@pytest.mark.parametrize('order', masked.ORDERS)
def test_steps_lead_to_the_draw(order):
  drawing = MaskedDrawing(steps=2, order=order)
  model, variables = small.prior(Masked, LAYOUT)
  keys, labels = jax.random.split(jax.random.key(3), 7), jnp.ones(7, jnp.int32)
  events, seen = jax.jit(
    lambda: model.apply(variables, keys, labels, drawing, method='draw_steps')
  )()
  assert events.shape == (2, 7, 1, T, 2)
  np.testing.assert_array_equal(events[-1], _draw(drawing)(keys, labels, None))
  assert np.all(seen[0].sum(axis=(1, 2)) == 1)  # the cosine leaves two of three
  assert np.all(seen[1])
  # What has been seen stays.
  np.testing.assert_array_equal(events[1][seen[0]], events[0][seen[0]])


@pytest.mark.parametrize(
  'height, width', [(1, 1), (1, 7), (7, 1), (3, 5), (8, 8), (16, 16), (64, 48)]
)
def test_halton_order_has_each_site_once(height, width):
  ranks = masked.halton_ranks(height, width)
  np.testing.assert_array_equal(np.sort(ranks), np.arange(height * width))


def test_halton_order_is_that_of_its_sequence():
  from scipy.stats import qmc

  # The first ones, and evenly spread: a quarter of a map has each fourth.
  points = qmc.Halton(2, scramble=False).random(40) * [8, 9]
  sites = np.floor(points + 1e-9).astype(int) @ [9, 1]
  ranks = masked.halton_ranks(8, 9)
  np.testing.assert_array_equal(np.argsort(ranks)[:40], sites)


def test_a_code_that_keeps_sites_is_refused():
  model = Masked(sites=(2, 2), layout=Layout((2, 2), (2, 3), kept=2))
  with pytest.raises(InputError, match='use prior=ar'):
    model.check()


def test_unfit_settings_are_said():
  with pytest.raises(InputError, match="order.*'holton'.*halton"):
    MaskedDrawing(order='holton')
  with pytest.raises(InputError, match='steps is 0'):
    MaskedDrawing(steps=0)
