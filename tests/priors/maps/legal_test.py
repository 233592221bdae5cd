import itertools

import jax
import numpy as np
import pytest

from lasers_jax.priors.maps.layout import Layout, Sets

RNG = np.random.default_rng(0)
MOST = 256  # events of a site, so that shapes are few


def pairs(k, levels, s, order=None, apart=False):
  """A layout of one set, whose pairs have this order."""
  order = np.arange(k * levels) if order is None else order
  planes = tuple(range(s))
  sizes = (k * levels,) * s
  if apart:
    assert len(order) == k * levels
    planes = tuple(range(0, 2 * s, 2))
    sizes = (k, levels) * s
    order = order[:k] if len(order) == k else RNG.permutation(k) * levels
  atoms, fixed = np.divmod(order, levels)
  over = tuple(x + 1 for x in planes) if apart else ()
  group = Sets(planes, atoms.astype('i4'), fixed.astype('i4'), over)
  return Layout((1, 1), sizes, (group,))


def walk(layout, left=None):
  """All events of a site, int32 [n, P], each with p under random logits."""
  events, p = np.zeros((1, 0), np.int32), np.ones(1)
  for plane, size in enumerate(layout.sizes):
    rows = np.pad(events, ((0, MOST - len(events)), (0, 0)))
    given = None if left is None else np.tile(left, (MOST, 1))
    legal = layout.legal(plane, rows, given)
    legal = np.ones((MOST, size), bool) if legal is None else np.array(legal)
    legal = legal[: len(events)]
    assert np.all(np.any(legal, axis=1)), 'a dead end'
    shares = np.where(legal, np.exp(RNG.normal(size=legal.shape)), 0)
    shares /= shares.sum(axis=1, keepdims=True)
    rows, values = np.nonzero(legal)
    events = np.concatenate([events[rows], values[:, None]], axis=1)
    events, p = events.astype(np.int32), p[rows] * shares[rows, values]
  return events, p


def sets_of(layout, events):
  """The set of pairs that the events of a site are."""
  group = layout.sets[0]
  found = []
  for i in range(len(group.planes)):
    rank = events[group.planes[i]]
    level = group.levels[rank]
    if group.level_planes:
      level = events[group.level_planes[i]]
    found.append((int(group.atoms[rank]), int(level)))
  return frozenset(found)


def all_sets(k, levels, s):
  for atoms in itertools.combinations(range(k), s):
    for each in itertools.product(range(levels), repeat=s):
      yield frozenset(zip(atoms, each, strict=True))


@pytest.mark.parametrize(
  'k, levels, s, apart',
  [(4, 2, 2, False), (5, 2, 3, False), (3, 3, 3, False), (4, 2, 3, True)],
)
def test_each_set_is_one_list_of_events(k, levels, s, apart):
  order = RNG.permutation(k * levels)
  layout = pairs(k, levels, s, order, apart)
  events, p = walk(layout)
  found = {sets_of(layout, x) for x in events}
  expected = set(all_sets(k, levels, s))
  assert len(events) == len(expected)
  assert found == expected
  assert p.sum() == pytest.approx(1, abs=1e-5)


def test_two_sites_of_sets_have_a_sum_of_one():
  # K = 4, one bit, S = 2: 24 sets a site; T = 2.
  layout = pairs(4, 2, 2, RNG.permutation(8))
  (events, p), (_, q) = walk(layout), walk(layout)
  assert len(events) == 24
  assert np.outer(p, q).sum() == pytest.approx(1, abs=1e-5)


def test_all_eighty_sets_are_reached_in_a_random_order():
  layout = pairs(5, 2, 3, RNG.permutation(10))
  found = [sets_of(layout, x) for x in walk(layout)[0]]
  assert len(set(found)) == len(found) == 80


def test_without_looking_ahead_mass_is_lost():
  """The first rank may not be one after which no set can be finished."""
  layout = pairs(4, 2, 2)
  first = layout.legal(0, np.zeros(0, np.int32))
  # Pairs of atom 3 have no other atom above them.
  np.testing.assert_array_equal(first, [1, 1, 1, 1, 1, 1, 0, 0])


def test_distinct_values_differ():
  layout = Layout((1, 1), (4, 4, 4, 3), distinct=((0, 1, 2),))
  events, p = walk(layout)
  assert len(events) == 4 * 3 * 2 * 3
  assert all(len(set(x[:3])) == 3 for x in events)
  assert p.sum() == pytest.approx(1, abs=1e-5)


def images(layout, sites):
  """All events of the sites of an image, int32 [n, sites, P], each with p."""
  found = [(np.zeros((0, len(layout.sizes)), np.int32), 1.0)]
  for site in range(sites):
    walks = {}
    longer = []
    for before, p in found:
      left = layout.kept - int(before[:, 0].sum()), sites - site
      if left not in walks:
        walks[left] = walk(layout, np.array(left))
      for events, q in zip(*walks[left], strict=True):
        longer.append((np.concatenate([before, events[None]]), p * q))
    found = longer
  events, p = zip(*found, strict=True)
  return np.stack(events), np.array(p)


def assert_kept(layout, events, p, count):
  """The events of images are whole, and others than those of kept sites 0."""
  assert len(np.unique(events, axis=0)) == len(events) == count
  np.testing.assert_array_equal(events[..., 0].sum(axis=1), layout.kept)
  assert not np.any(events[events[..., 0] == 0])
  assert p.sum() == pytest.approx(1, abs=1e-5)


def test_an_image_keeps_as_many_sites_as_it_must():
  layout = Layout((2, 2), (2, 3), kept=2)
  events, p = images(layout, 4)
  assert_kept(layout, events, p, 6 * 3**2)
  left = layout.left(events.reshape(-1, 2, 2, 2)).reshape(-1, 4, 2)
  before = np.cumsum(events[..., 0], axis=1) - events[..., 0]
  np.testing.assert_array_equal(left[..., 0], 2 - before)
  np.testing.assert_array_equal(left[:, :, 1], [[4, 3, 2, 1]] * len(events))


def test_sets_of_sites_that_are_not_kept_are_zero():
  order = RNG.permutation(8).astype('i4')
  group = Sets((1, 2), order // 2, order % 2)
  layout = Layout((1, 2), (2, 8, 8), (group,), kept=1)
  assert_kept(layout, *images(layout, 2), 2 * 24)


def test_planes_of_their_own_are_free():
  layout = Layout((1, 1), (5, 6))
  assert layout.legal(1, np.zeros((2, 1), np.int32)) is None
  assert layout.left(np.zeros((1, 1, 2), np.int32)) is None


def test_batches_and_programs_say_the_same_as_a_site_alone():
  layout = pairs(5, 2, 3, RNG.permutation(10))
  sites = walk(layout)[0]
  sites = sites[RNG.permutation(len(sites))[:24]].reshape(4, 6, -1)
  legal = jax.jit(layout.legal, static_argnums=0)
  for plane in range(3):
    together = legal(plane, sites[..., :plane])
    assert together.shape == (4, 6, 10)
    for i, j in (0, 0), (1, 5), (3, 2):
      alone = layout.legal(plane, sites[i, j, :plane])
      np.testing.assert_array_equal(together[i, j], alone)
