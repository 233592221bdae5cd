import itertools

import jax
import numpy as np
import pytest

from lasers_jax.priors.maps.layout import Layout, Sets

RNG = np.random.default_rng(0)


def pairs(k, levels, s, order=None, counted=False, apart=False):
  """A layout of one set, whose pairs have this order."""
  order = np.arange(k * levels) if order is None else order
  first = int(counted)
  planes = tuple(range(first, first + s))
  sizes = (k * levels,) * s
  if apart:
    assert len(order) == k * levels
    planes = tuple(range(first, first + 2 * s, 2))
    sizes = (k, levels) * s
    order = order[:k] if len(order) == k else RNG.permutation(k) * levels
  atoms, fixed = np.divmod(order, levels)
  counts = 0 if counted else None
  over = tuple(x + 1 for x in planes) if apart else ()
  group = Sets(planes, counts, atoms.astype('i4'), fixed.astype('i4'), over)
  return Layout((1, 1), ((s + 1,) if counted else ()) + sizes, (group,))


def walk(layout, left=None, before=(), p=1.0):
  """Yields all events of a site, each with p under logits of each prefix."""
  plane = len(before)
  if plane == len(layout.sizes):
    yield before, p
    return
  legal = layout.legal(plane, np.array(before, np.int32), left)
  legal = np.ones(layout.sizes[plane], bool) if legal is None else legal
  assert np.any(legal), f'a dead end after {before}'
  logits = np.random.default_rng([7, *before]).normal(size=len(legal))
  shares = np.where(legal, np.exp(logits), 0)
  shares /= shares.sum()
  for value in np.flatnonzero(legal):
    yield from walk(layout, left, (*before, int(value)), p * shares[value])


def sets_of(layout, events):
  """The set of pairs that the events of a site are."""
  group = layout.sets[0]
  count = len(group.planes)
  if group.counts is not None:
    count = events[group.counts]
  found = []
  for i in range(count):
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


@pytest.mark.parametrize('counted', [False, True])
@pytest.mark.parametrize(
  'k, levels, s, apart',
  [(4, 2, 2, False), (5, 2, 3, False), (3, 3, 3, False), (4, 2, 3, True)],
)
def test_each_set_is_one_list_of_events(k, levels, s, apart, counted):
  order = RNG.permutation(k * levels)
  layout = pairs(k, levels, s, order, counted, apart)
  found = [(sets_of(layout, events), p) for events, p in walk(layout)]
  expected = set()
  for size in range(s + 1) if counted else [s]:
    expected |= set(all_sets(k, levels, size))
  assert len(found) == len(expected)
  assert {x for x, _ in found} == expected
  assert sum(p for _, p in found) == pytest.approx(1, abs=1e-5)


def test_two_sites_of_sets_have_a_sum_of_one():
  # K = 4, one bit, S = 2: 24 sets a site, 576 of two sites.
  layout = pairs(4, 2, 2, RNG.permutation(8))
  site = list(walk(layout))
  assert len(site) == 24
  total = sum(p * q for _, p in site for _, q in site)
  assert total == pytest.approx(1, abs=1e-5)


def test_all_eighty_sets_are_reached_in_a_random_order():
  layout = pairs(5, 2, 3, RNG.permutation(10))
  found = [sets_of(layout, events) for events, _ in walk(layout)]
  assert len(set(found)) == len(found) == 80


def test_without_looking_ahead_mass_is_lost():
  """The first rank may not be one after which no set can be finished."""
  layout = pairs(4, 2, 2)
  first = layout.legal(0, np.zeros(0, np.int32))
  # Pairs of atom 3 have no other atom above them.
  np.testing.assert_array_equal(first, [1, 1, 1, 1, 1, 1, 0, 0])


def test_members_beyond_the_count_are_zero():
  layout = pairs(4, 2, 2, counted=True)
  for count, plane, events in (0, 1, [0]), (0, 2, [0, 0]), (1, 2, [1, 7]):
    legal = layout.legal(plane, np.array(events, np.int32))
    np.testing.assert_array_equal(legal, np.arange(8) == 0), count
  legal = layout.legal(1, np.array([1], np.int32))
  assert np.all(legal)


def test_distinct_values_differ():
  layout = Layout((1, 1), (4, 4, 4, 3), distinct=((0, 1, 2),))
  found = list(walk(layout))
  assert len(found) == 4 * 3 * 2 * 3
  assert all(len(set(x[:3])) == 3 for x, _ in found)
  assert sum(p for _, p in found) == pytest.approx(1, abs=1e-5)


def images(layout, sites, before=(), p=1.0):
  """Yields the events of all sites in raster order, with p."""
  if len(before) == sites:
    yield before, p
    return
  kept = sum(x[0] for x in before)
  left = np.array([layout.kept - kept, sites - len(before)], np.int32)
  for events, q in walk(layout, left):
    yield from images(layout, sites, (*before, events), p * q)


def test_an_image_keeps_as_many_sites_as_it_must():
  layout = Layout((2, 2), (2, 3), kept=2)
  found = list(images(layout, 4))
  assert len(found) == 6 * 3**2
  assert all(sum(x[0] for x in events) == 2 for events, _ in found)
  assert all(x[1] == 0 for events, _ in found for x in events if not x[0])
  assert sum(p for _, p in found) == pytest.approx(1, abs=1e-5)
  for events, _ in found:
    left = layout.left(np.array(events).reshape(2, 2, 2)).reshape(4, 2)
    kept = np.cumsum([0, *(x[0] for x in events)])[:4]
    np.testing.assert_array_equal(left[:, 0], 2 - kept)
    np.testing.assert_array_equal(left[:, 1], [4, 3, 2, 1])


def test_sets_of_sites_that_are_not_kept_are_zero():
  order = RNG.permutation(8).astype('i4')
  group = Sets((2, 3), 1, order // 2, order % 2)
  layout = Layout((1, 2), (2, 3, 8, 8), (group,), kept=1)
  found = list(images(layout, 2))
  assert len(found) == 2 * (1 + 8 + 24)
  assert all(not any(x) for events, _ in found for x in events if not x[0])
  assert sum(p for _, p in found) == pytest.approx(1, abs=1e-5)


def test_planes_of_their_own_are_free():
  layout = Layout((1, 1), (5, 6))
  assert layout.legal(1, np.zeros((2, 1), np.int32)) is None
  assert layout.left(np.zeros((1, 1, 2), np.int32)) is None


def test_batches_and_programs_say_the_same_as_a_site_alone():
  layout = pairs(5, 2, 3, RNG.permutation(10), counted=True)
  sites = np.array([x for x, _ in walk(layout)], np.int32)
  sites = sites[RNG.permutation(len(sites))[:24]].reshape(4, 6, -1)
  legal = jax.jit(layout.legal, static_argnums=0)
  for plane in range(1, 4):
    together = legal(plane, sites[..., :plane])
    assert together.shape == (4, 6, 10)
    for i, j in (0, 0), (1, 5), (3, 2):
      alone = layout.legal(plane, sites[i, j, :plane])
      np.testing.assert_array_equal(together[i, j], alone)
