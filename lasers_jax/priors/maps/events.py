"""Codes as events: integers of every site, in planes, and back.

The `transfer` of a bottleneck leads a coder through its codes: that is all that
is known of it here. One coder records the integers as planes, another plays
them back.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.bottlenecks import Bottleneck
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.errors import InputError, unknown
from lasers_jax.priors.maps.layout import Layout
from lasers_jax.priors.maps.pairs import ORDERS, Orders, find_orders


@dataclasses.dataclass(frozen=True, eq=False)
class Events:
  """Turns codes of a bottleneck into events and back.

      tables = module.apply(variables, method='energies')
      events = Events.of(module, (8, 8), tables)
      planes = events.record(codes)  # int32 [H, W, P]
      codes = events.play(planes)  # the same arrays

  Codes are pytrees of NumPy arrays, as `Bottleneck.transfer` takes them.

  Attributes:
    bottleneck: of the codes.
    latent_sites: H and W of the latent; the grid of codes is `layout.sites`.
    layout: of the planes.
    orders: of the pairs of each set.
    channels: groups of planes that are integers of channels, of one size each.
    planes: which plane of the code each plane of events is; those of a group
      of `channels` may come in any order.
  """

  bottleneck: Bottleneck
  latent_sites: Sites
  layout: Layout
  orders: Orders
  channels: tuple[tuple[int, ...], ...]
  planes: tuple[int, ...]

  @classmethod
  def of(
    cls,
    bottleneck: Bottleneck,
    latent_sites: Sites,
    tables: Mapping[str, np.ndarray] | None = None,
    order: str = 'energy',
    seed: int = 0,
  ) -> 'Events':
    """Finds the layout of a bottleneck's events.

    Args:
      bottleneck: need not be bound.
      latent_sites: H and W of the latent.
      tables: of `Bottleneck.energies`, of the trained variables.
      order: in which the pairs of a set come: 'energy', the strongest first
        by the tables, where there are any; 'atoms', by atom and then by level;
        'random', by a fixed draw.
      seed: of that draw.

    Raises:
      InputError: the code has no events.
    """
    if order not in ORDERS:
      raise unknown('order', order, ORDERS)
    if bottleneck.bits_per_site is None:
      raise InputError(
        f'{type(bottleneck).__name__} has a continuous code, which has no '
        "events: take the prior 'flow', or train a bottleneck of a discrete "
        'code'
      )
    orders = find_orders(tables or {}, order, seed)
    finder = _Finder(orders, latent_sites)
    bottleneck.transfer(finder, latent_sites)
    layout, channels = finder.layout(), tuple(finder.channel_planes)
    stored = tuple(range(len(layout.sizes)))
    return cls(bottleneck, latent_sites, layout, orders, channels, stored)

  def by_variance(self, events: np.ndarray) -> tuple[int, ...]:
    """Returns `planes` by which channels come in falling variance.

    Args:
      events: int [n, H, W, P], of training images, by these planes.
    """
    rows = np.asarray(events).reshape(-1, len(self.planes)).astype(np.int64)
    if self.layout.kept is not None:
      rows = rows[rows[:, 0] == 1]  # the others have no integers
    # Integers without a bound: the order is the same on any machine.
    sums, squares = (
      np.sum(rows**power, axis=0).astype(object) for power in (1, 2)
    )
    spread, found = len(rows) * squares - sums**2, np.array(self.planes)
    for group in map(list, self.channels):
      found[group] = found[group][np.argsort(-spread[group], kind='stable')]
    return tuple(found.tolist())

  def record(self, codes: Any) -> np.ndarray:
    """Returns the events of one image: int32 [H, W, P]."""
    one = jax.tree.map(lambda x: np.asarray(x)[None], codes)
    return self.record_batch(one)[0]

  def play(self, events: np.ndarray) -> Any:
    """Returns the codes of one image, of its events [H, W, P]."""
    return jax.tree.map(lambda x: x[0], self.play_batch(events[None]))

  def record_batch(self, codes: Any) -> np.ndarray:
    """Returns the events of codes with a leading B: int32 [B, H, W, P]."""
    return np.take(self._record_stored(codes), self.planes, axis=-1)

  def _record_stored(self, codes: Any) -> np.ndarray:
    """Returns the planes as the code has them."""
    codes = jax.tree.map(np.asarray, codes)
    count = len(jax.tree.leaves(codes)[0])
    if self.layout.kept is not None:
      each = [jax.tree.map(lambda x, i=i: x[i], codes) for i in range(count)]
      return np.stack([self._record(x, self.latent_sites) for x in each])
    tall = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), codes)
    h, w = self.latent_sites
    events = self._record(tall, (count * h, w))
    return events.reshape(count, *self.layout.sites, -1)

  def play_batch(self, events: np.ndarray) -> Any:
    """Returns codes with a leading B, of events [B, H, W, P]."""
    events, count = np.asarray(events), len(events)
    events = np.take(events, np.argsort(self.planes), axis=-1)
    if self.layout.kept is not None:
      each = [self._play(x, self.latent_sites) for x in events]
      return jax.tree.map(lambda *x: np.stack(x), *each)
    h, w = self.latent_sites
    tall = self._play(events.reshape(-1, *events.shape[2:]), (count * h, w))
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), tall)

  def _record(self, codes: Any, sites: Sites) -> np.ndarray:
    recorder = _Recorder(self.orders, sites)
    self.bottleneck.transfer(recorder, sites, codes)
    return np.stack(recorder.found, axis=-1)

  def _play(self, events: np.ndarray, sites: Sites) -> Any:
    return self.bottleneck.transfer(_Player(self.orders, sites, events), sites)


class _EventCoder(Coder, abc.ABC):
  """Goes through planes of events; a subclass takes or gives their values."""

  def __init__(self, orders: Orders, latent_sites: Sites):
    self._orders, self._latent_sites = orders, latent_sites
    self._sites, self._sizes = latent_sites, []
    self._sets, self._distinct, self.channel_planes = [], [], []
    self._kept, self._positions = None, None

  def layout(self) -> Layout:
    groups = tuple(self._sets), tuple(self._distinct)
    return Layout(self._sites, tuple(self._sizes), *groups, self._kept)

  def planes(self, name, codes, sites, sizes):
    each = [None] * len(sizes) if codes is None else np.moveaxis(codes, -1, 0)
    found = [
      self._plane(values, sites, size)
      for values, size in zip(each, sizes, strict=True)
    ]
    return np.stack(found, axis=-1).astype(np.int64)

  def channels(self, name, codes, sites, size, count):
    first = len(self._sizes)
    self.channel_planes.append(tuple(range(first, first + count)))
    return self.planes(name, codes, sites, [size] * count)

  def distinct(self, name, codes, sites, sizes):
    first = len(self._sizes)
    self._distinct.append(tuple(range(first, first + len(sizes))))
    return self.planes(name, codes, sites, sizes)

  def numbers(self, name, codes, sites, limit, count):
    codes = None if codes is None else codes + limit
    return self.channels(name, codes, sites, 2 * limit + 1, count) - limit

  def pairs(self, name, codes, sites, shape):
    s, k, levels = shape
    pairs = self._orders(name, k, levels)
    events = None if codes is None else pairs.events(*codes)
    first = len(self._sizes)
    events = self.planes(name, events, sites, pairs.sizes * s)
    self._sets.append(pairs.sets(first, s))
    return pairs.codes(events) if codes is None else codes

  def subset(self, values, m, n):
    if self._sizes:
      raise InputError(
        'a bottleneck that keeps some sites has no events inside another one: '
        'make it the outer one (bottleneck.inner)'
      )
    kept = None
    if values is not None:
      kept = np.isin(np.arange(n), values).reshape(self._latent_sites)
    kept = self._plane(kept, self._latent_sites, 2)
    self._kept, self._positions = m, np.flatnonzero(kept)
    return self._positions

  def sets(self, name, codes, sites, size, count):
    raise _no_maps(name)

  def table(self, name, values, n, size, rows=None, row_count=1):
    raise _no_maps(name)

  def _plane(self, values, sites, size):
    if self._kept is None:
      if self._sizes and sites != self._sites:
        raise InputError('codes of maps of several sizes have no events')
      self._sites = sites
    self._sizes.append(size)
    return self._pass(values, sites)

  @abc.abstractmethod
  def _pass(self, values: np.ndarray | None, sites: Sites) -> np.ndarray:
    """Takes or gives the values of the next plane, [h, w] of codes."""


class _Finder(_EventCoder):
  """Gives zeros, to find the layout."""

  def _pass(self, values, sites):
    return np.zeros(sites, np.int32)


class _Recorder(_EventCoder):
  """Takes the values of codes: `found` has their planes, int32 [H, W]."""

  def __init__(self, orders, latent_sites):
    super().__init__(orders, latent_sites)
    self.found: list[np.ndarray] = []

  def _pass(self, values, sites):
    assert values is not None  # codes are given
    plane = values.astype(np.int32)
    if self._kept is not None:
      plane = np.zeros(math.prod(self._latent_sites), np.int32)
      plane[self._positions] = values.ravel()
      plane = plane.reshape(self._latent_sites)
    self.found.append(plane)
    return values


class _Player(_EventCoder):
  """Gives the values of planes of events [H, W, P]."""

  def __init__(self, orders, latent_sites, events: np.ndarray):
    super().__init__(orders, latent_sites)
    self._events = events

  def _pass(self, values, sites):
    plane = self._events[..., len(self._sizes) - 1]
    if self._kept is not None:
      plane = plane.ravel()[self._positions]
    return plane.reshape(sites)


def _no_maps(name: str) -> InputError:
  return InputError(
    f'the codes {name!r} have no events, since they are not of maps: write '
    'them in `transfer` by planes, distinct, numbers, pairs or subset'
  )
