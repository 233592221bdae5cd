"""Probabilities of codes, given those of the sites around them.

A small network sees the codes of the sites to the left, above left, above, and
above right, as the first layer of a PixelCNN does (A. van den Oord et al., ICML
2016), and what was coded before at the site itself. It is trained with floats,
and then used with integers alone (J. Ballé, N. Johnston and D. Minnen, "Integer
networks for data compression with latent-variable models", ICLR 2019): so every
machine finds the same probabilities, down to the last bit. Matrix products are
in float64, which adds integers below 2^53 exactly, in whatever order.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lasers_jax.codec.tables import FINE, powers, with_even_fraction

NEIGHBOURS = ((0, -1), (-1, -1), (-1, 0), (-1, 1))  # rows, columns

_UNIT = 2**8  # of all numbers in the network
_HIGHEST = 16  # of a hidden number
_LARGEST = 2**15  # of a parameter, in units

_WIDTH = 48
STEPS = 3_000  # of training
_BATCH = 512
_LEARNING_RATE = 5e-3
_DECAY = 1e-2


class Network(NamedTuple):
  """Integers [..], in units of 1 / _UNIT but for `bias`.

  All symbols of a site are numbered together: those of the second plane follow
  those of the first. The members of a set share one numbering.

  Attributes:
    around: [4, symbols + 1, w], what each symbol of a neighbour says; the last
      is where there is none.
    before: [symbols, w], what a plane of the site itself says to later ones.
    hidden: [planes, w].
    out: [w, symbols].
    bias: [symbols], in units of 1 / _UNIT².
  """

  around: np.ndarray
  before: np.ndarray
  hidden: np.ndarray
  out: np.ndarray
  bias: np.ndarray


class Kind(NamedTuple):
  """Describes the integers of a site: a plane of each size, or a set.

  A set has `count` members, all below its one size.
  """

  sizes: tuple[int, ...]
  count: int | None = None

  @property
  def planes(self) -> int:
    """Integers at a site."""
    return self.count or len(self.sizes)

  @property
  def starts(self) -> np.ndarray:
    """Returns the number of each plane's first symbol: [planes]."""
    if self.count:
      return np.zeros(self.count, np.int64)
    return np.cumsum([0, *self.sizes[:-1]])

  def symbols(self, plane: int) -> slice:
    start = self.starts[plane]
    return slice(start, start + self.sizes[plane])


def shapes(kind: Kind) -> Network:
  """Returns the shapes of a network of maps of this kind."""
  n, planes = sum(kind.sizes), len(kind.sizes)
  return Network(
    around=(len(NEIGHBOURS), n + 1, _WIDTH),
    before=(n, _WIDTH),
    hidden=(planes, _WIDTH),
    out=(_WIDTH, n),
    bias=(n,),
  )


class AutoregressiveMap:
  """Predicts a map of codes, which becomes known from the upper left on."""

  def __init__(self, network: Network, kind: Kind, sites: tuple[int, int]):
    self._network, self._kind = network, kind
    self._out = network.out.astype(np.float64)
    nothing = sum(kind.sizes)
    shape = sites[0] + 1, sites[1] + 2, kind.planes
    self._seen = np.full(shape, nothing)  # a border above, left and right

  @property
  def codes(self) -> np.ndarray:
    """Returns the codes so far known: int64 [h, w, planes]."""
    return self._seen[1:, 1:-1] - self._kind.starts

  def waves(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields rows and columns [n] of sites, each after all its neighbours."""
    height, width, _ = self.codes.shape
    for time in range(width + 2 * (height - 1)):
      rows = np.arange(max(0, (time - width + 2) // 2), time // 2 + 1)
      rows = rows[rows < height]
      if len(rows):
        yield rows, time - 2 * rows

  def weights(self, where, plane: int) -> np.ndarray:
    """Weighs the symbols of a plane at n sites: int64 [n, size]."""
    net, symbols = self._network, self._kind.symbols(plane)
    hidden = net.hidden[plane] + self._heard(where, plane)
    hidden = np.clip(hidden, 0, _HIGHEST * _UNIT).astype(np.float64)
    logits = (hidden @ self._out[:, symbols]).astype(np.int64)
    logits = (logits + net.bias[symbols]) // (_UNIT**2 // FINE)
    return with_even_fraction(powers(logits))

  def _heard(self, where, plane: int) -> np.ndarray:
    rows, columns = where
    context = _around(self._seen, rows, columns)
    heard = sum(
      self._network.around[i, context[:, i]].sum(axis=1)
      for i in range(len(NEIGHBOURS))
    )
    known = self._seen[rows + 1, columns + 1, :plane]
    return heard + self._network.before[known].sum(axis=1)

  def learn(self, where, plane: int, codes: np.ndarray) -> None:
    """Takes the codes [n] of a plane at n sites as known."""
    rows, columns = where
    start = self._kind.starts[plane]
    self._seen[rows + 1, columns + 1, plane] = codes + start


def fit(maps: Sequence[np.ndarray], kind: Kind, seed: int = 0) -> Network:
  """Trains a network on maps of codes int [h, w, planes]."""
  pairs = [_neighbourhoods(codes, kind) for codes in maps]
  around, own = (
    np.concatenate([pair[i] for pair in pairs]).astype(np.int32)
    for i in range(2)
  )
  rng = np.random.default_rng(seed)
  params = _start(kind, own, rng)
  optimizer = optax.adamw(
    optax.cosine_decay_schedule(_LEARNING_RATE, STEPS), weight_decay=_DECAY
  )
  state = optimizer.init(params)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def train(params, state, around, own):
    grads = jax.grad(bits)(params, kind, around, own)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for _ in range(STEPS):
    rows = rng.integers(len(own), size=_BATCH)
    params, state = train(params, state, around[rows], own[rows])
  return _as_integers(jax.device_get(params))


def bits(params: Network, kind: Kind, around, own):
  """Returns the mean bits of a site, of floats as the network is trained.

  Args:
    around: int32 [n, 4, planes], numbers of symbols.
    own: int32 [n, planes].
  """
  heard = sum(
    params.around[i][around[:, i]].sum(axis=1) for i in range(len(NEIGHBOURS))
  )
  total = 0.0
  for plane in range(len(kind.sizes)):
    symbols = kind.symbols(plane)
    before = params.before[own[:, :plane]].sum(axis=1)
    hidden = params.hidden[plane][None] + heard + before
    hidden = jnp.clip(hidden, 0, _HIGHEST)
    logits = hidden @ params.out[:, symbols] + params.bias[symbols][None]
    log_fractions = jax.nn.log_softmax(jnp.log(2.0) * logits) / jnp.log(2.0)
    # The members of a set as if drawn one by one: near enough for S « K.
    chosen = own if kind.count else own[:, plane : plane + 1]
    chosen -= symbols.start
    costs = -jnp.take_along_axis(log_fractions, chosen, axis=1, mode='clip')
    total += jnp.sum(costs, axis=1)
  return jnp.mean(total)


def _neighbourhoods(codes: np.ndarray, kind: Kind):
  """Symbols around each site [n, 4, planes], and its own [n, planes]."""
  numbers = codes.astype(np.int64) + kind.starts
  border = (1, 0), (1, 1), (0, 0)
  padded = np.pad(numbers, border, constant_values=sum(kind.sizes))
  rows, columns = (x.ravel() for x in np.indices(codes.shape[:2]))
  return _around(padded, rows, columns), numbers[rows, columns]


def _around(padded: np.ndarray, rows, columns) -> np.ndarray:
  """Symbols around n sites of a map with a border: [n, 4, planes]."""
  return np.stack(
    [padded[rows + dy + 1, columns + dx + 1] for dy, dx in NEIGHBOURS], axis=1
  )


def _start(kind: Kind, own: np.ndarray, rng) -> Network:
  """At first the network says how often each symbol was seen."""
  n = sum(kind.sizes)
  counts = np.bincount(own.ravel(), minlength=n) + 0.5

  def normal(*shape, scale):
    return jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)

  *weights, _ = shapes(kind)
  bias = jnp.asarray(np.log2(counts / counts.sum()), jnp.float32)
  return Network(*(normal(*shape, scale=0.1) for shape in weights), bias)


def _as_integers(params: Network) -> Network:
  def rounded(x, unit):
    most = _LARGEST * (unit // _UNIT)
    return np.clip(np.rint(unit * np.float64(x)), -most, most).astype(np.int64)

  units = Network(_UNIT, _UNIT, _UNIT, _UNIT, _UNIT**2)
  return Network(*itertools.starmap(rounded, zip(params, units, strict=True)))
