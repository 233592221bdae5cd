"""Predicts the size of integers from those that are known.

For maps of planes of integers, such as the channels of a transform. One plane
comes after the other, and the sites of each from coarse to fine. An integer is
predicted from the four known ones around it, and its error from their errors,
as in P. Howard and J. Vitter, "New methods for lossless image compression using
arithmetic coding", Inf. Proc. & Management 1992 (MLP); and from earlier planes,
at the site and beside it, as D. Minnen and S. Singh, ICIP 2020, take slices of
channels one by one. Both predictions are linear, and fitted to training maps.
The expected error falls into one of a few bins, each with a table of how often
each error occurred.

All arithmetic is of integers, with products in float64 where sums stay below
2^53: the results are the same on every machine.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lasers_jax.codec.tables import weigh

_COARSEST = 8  # sites between those that come first
KINDS = 7  # of passes: the first, and two each time the grid is halved
_MOST = 63  # that counts of how far off one was
_UNIT = 2**12  # of the weights of scales
_SLOPE = 2**8  # of the weights of predictions
_PARTS = 12  # a mean of 1 to 4 is exact in twelfths
_LARGEST = 2**20  # weight, in units
_AT_ONCE = 2**14  # sites
_BLOCK = 16  # planes
# Of the bins of scales: from 2^-7 to 2^7, four to an octave.
_EDGES = np.array([round(_UNIT * 2 ** (j / 4)) for j in range(-28, 29)])

STEPS = 1_500  # of training
_BATCH = 256
_LEARNING_RATE = 2e-2


class Scales(NamedTuple):
  """Holds integers [..], by planes and by kinds of passes.

  Attributes:
    slope, offset: [kinds, planes], of predictions, in 1 / _SLOPE.
    least: [kinds, planes], of scales, as those below in 1 / _UNIT.
    near: [kinds, planes], of the errors of the integers that predict.
    before, beside: [planes, planes], of plane i for plane j > i, at the site
      and at the four around it.
    scale_bins: [bins, 4 limit + 1], weights of the errors.
  """

  slope: np.ndarray
  offset: np.ndarray
  least: np.ndarray
  near: np.ndarray
  before: np.ndarray
  beside: np.ndarray
  scale_bins: np.ndarray


def shapes(limit: int, planes: int) -> Scales:
  """Returns the shapes of `Scales` for integers in [-limit, limit]."""
  each, square = (KINDS, planes), (planes, planes)
  bins = len(_EDGES) + 1, 4 * limit + 1
  return Scales(each, each, each, each, square, square, bins)


class ScanPass(NamedTuple):
  """Holds sites that come at once, and the k that predict each."""

  kind: int
  rows: np.ndarray  # [n]
  columns: np.ndarray  # [n]
  near: tuple[np.ndarray, np.ndarray]  # rows and columns, [k, n]
  parts: np.ndarray  # of a mean, in 1 / _PARTS, [k, n]; 0 beyond the map


@functools.lru_cache(maxsize=4)
def passes(height: int, width: int) -> tuple[ScanPass, ...]:
  """Returns all sites of a map, from coarse to fine; at most 7 passes."""
  row, column = np.indices((height, width))
  first = (row % _COARSEST == 0) & (column % _COARSEST == 0)
  found = [_pass(0, first, ())]
  grid, kind = _COARSEST, 1
  while grid > 1:
    half = grid // 2
    middle = [(x % grid == half) for x in (row, column)]
    known = [(x % grid == 0) for x in (row, column)]
    diagonal = tuple((y, x) for y in (-half, half) for x in (-half, half))
    straight = (-half, 0), (half, 0), (0, -half), (0, half)
    edges = (middle[0] & known[1]) | (known[0] & middle[1])
    found += [
      _pass(kind, middle[0] & middle[1], diagonal),
      _pass(kind + 1, edges, straight),
    ]
    grid, kind = half, kind + 2
  return tuple(x for x in found if len(x.rows))


def _pass(kind: int, here: np.ndarray, offsets: Sequence) -> ScanPass:
  """The sites of a map bool [h, w], and those so far off."""
  rows, columns = np.nonzero(here)
  height, width = here.shape
  offsets = np.array(offsets, int).reshape(-1, 2, 1)
  y, x = rows + offsets[:, 0], columns + offsets[:, 1]
  inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
  parts = inside * (_PARTS // np.maximum(inside.sum(axis=0), 1))
  return ScanPass(kind, rows, columns, (y % height, x % width), parts)


class ScalePredictor:
  """Predicts maps of integers [..., h, w], which become known by planes."""

  def __init__(self, scales: Scales, limit: int, shape: tuple[int, ...]):
    """Begins with nothing; shape: [..., h, w, planes]."""
    *lead, planes = shape
    self._scales, self._limit = scales, limit
    self._known = np.zeros((planes, *lead), np.int32)
    self.off = np.zeros((planes, *lead), np.uint8)
    self.beside = np.zeros((planes, *lead), np.uint8)
    self._context = np.zeros(lead)  # to the plane that comes
    self._earlier = np.zeros((_BLOCK, *lead))  # to its block, by those before

  @property
  def codes(self) -> np.ndarray:
    """Returns the integers so far known: int64 [..., h, w, planes]."""
    return np.moveaxis(self._known, 0, -1).astype(np.int64)

  def expect(self, plane: int, one: ScanPass) -> tuple[np.ndarray, np.ndarray]:
    """Predicts integers of a pass, and their bins of scales: int64 [..., n]."""
    net, at = self._scales, (one.kind, plane)
    means = _around(self._known[plane], one)
    guess = net.slope[at] * means + _PARTS * (net.offset[at] + _SLOPE // 2)
    guess = np.clip(guess // (_PARTS * _SLOPE), -self._limit, self._limit)
    near = net.near[at] * _around(self.off[plane], one) // _PARTS
    context = self._context[..., one.rows, one.columns].astype(np.int64)
    scale = net.least[at] + near + context
    return guess, np.searchsorted(_EDGES, scale)

  def learn(self, plane: int, one: ScanPass, codes, guess) -> None:
    """Takes the integers of a pass as known: [..., n]."""
    where = (..., one.rows, one.columns)
    self._known[plane][where] = codes
    self.off[plane][where] = np.minimum(np.abs(codes - guess), _MOST)

  def finish(self, plane: int) -> None:
    """Goes on to the next plane."""
    self.beside[plane] = _beside(self.off[plane])
    n = plane + 1
    if n == len(self._known):
      return
    # Most of it for a block of planes at once, as a product of matrices.
    first = n - n % _BLOCK
    if n == first:
      self._earlier = self._say(slice(first), slice(n, n + _BLOCK))
    late = self._say(slice(first, n), slice(n, n + 1))[0]
    self._context = self._earlier[n - first] + late

  def _say(self, known: slice, later: slice) -> np.ndarray:
    """What some planes say to later ones: float64 [later, ..., h, w]."""
    net = self._scales
    weights = [x[known, later].T for x in (net.before, net.beside)]
    seen = [x[known] for x in (self.off, self.beside)]
    lead = seen[0].shape[1:]
    seen = [x.reshape(len(x), math.prod(lead)) for x in seen]
    sums = np.empty((len(weights[0]), math.prod(lead)))
    for start in range(0, sums.shape[1], _AT_ONCE):
      some = slice(start, start + _AT_ONCE)
      sums[:, some] = sum(
        w.astype(float) @ x[:, some].astype(float)
        for w, x in zip(weights, seen, strict=True)
      )
    return sums.reshape(-1, *lead)


def fit(maps: Sequence[np.ndarray], limit: int, seed: int = 0) -> Scales:
  """Fits `Scales` to maps int [h, w, planes] of integers in [-limit, limit].

  Maps of one size are taken together.
  """
  sizes = sorted({x.shape for x in maps})
  stacks = [np.stack([x for x in maps if x.shape == size]) for size in sizes]
  slope, offset = _predictions(stacks)
  blank = _blank(slope, offset, limit)
  seen = [_look(blank, limit, stack) for stack in stacks]
  together = _Seen(*map(np.concatenate, zip(*seen, strict=True)))
  scales = blank._replace(**_train(together, seed))
  counts = np.zeros((len(_EDGES) + 1, 4 * limit + 1), np.int64)
  for stack in stacks:
    _count(scales, limit, stack, counts)
  return scales._replace(scale_bins=weigh(counts))


class _Seen(NamedTuple):
  """What was there to see, and what came: int32 [n, planes] but for kind."""

  kind: np.ndarray  # [n]
  near: np.ndarray  # sums of a mean in 1 / _PARTS
  off: np.ndarray
  beside: np.ndarray


def _blank(slope: np.ndarray, offset: np.ndarray, limit: int) -> Scales:
  """Predicts, and expects nothing of how far off that is."""
  kinds, planes = slope.shape
  zeros = np.zeros((kinds, planes), np.int64)
  square = np.zeros((planes, planes), np.int64)
  bins = np.ones((1, 4 * limit + 1), np.int64)
  return Scales(slope, offset, zeros, zeros, square, square, bins)


def _predictions(stacks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Least squares of each plane and kind of pass: slope and offset."""
  planes = stacks[0].shape[-1]
  moments = np.zeros((5, KINDS, planes))
  for stack in stacks:
    maps = np.moveaxis(stack, -1, 0)
    for one in passes(*stack.shape[1:3]):
      x = (_around(maps, one) / _PARTS).reshape(planes, -1)
      y = maps[..., one.rows, one.columns].reshape(planes, -1).astype(float)
      sums = np.ones_like(x), x, y, x * x, x * y
      moments[:, one.kind] += np.sum(sums, axis=2)
  n, x, y, xx, xy = moments
  n = np.maximum(n, 1)
  # As if means had been 1 off once a thousand times: where all are equal.
  spread = xx - x * x / n + 1e-3 * n
  slope = (xy - x * y / n) / spread
  offset = (y - slope * x) / n
  return tuple(
    np.clip(np.rint(_SLOPE * part), -_LARGEST, _LARGEST).astype(np.int64)
    for part in (slope, offset)
  )


def _look(blank: Scales, limit: int, stack: np.ndarray) -> _Seen:
  """What is seen of maps [b, h, w, planes] as they become known."""
  kind = np.zeros(stack.shape[1:3], np.int32)
  near = np.zeros(stack.shape, np.int32)
  predictor = ScalePredictor(blank, limit, stack.shape)
  for plane, one, _, _ in _walk(predictor, stack):
    where = (..., one.rows, one.columns)
    kind[where] = one.kind
    near[(*where, plane)] = _around(predictor.off[plane], one)
  rows = [
    np.moveaxis(x, 0, -1).reshape(-1, stack.shape[-1]).astype(np.int32)
    for x in (predictor.off, predictor.beside)
  ]
  kinds = np.broadcast_to(kind, stack.shape[:3]).ravel()
  return _Seen(kinds, near.reshape(len(kinds), -1), *rows)


def _count(scales, limit, stack, counts) -> None:
  """Counts in which bin integers are how far off."""
  predictor = ScalePredictor(scales, limit, stack.shape)
  for _, _, off, bins in _walk(predictor, stack):
    np.add.at(counts, (bins, off + 2 * limit), 1)


def _walk(predictor: ScalePredictor, stack: np.ndarray):
  """Leads a predictor through known maps [b, h, w, planes].

  Yields (plane, pass, how far off what was expected is, bins) before each
  pass is learned.
  """
  for plane in range(stack.shape[-1]):
    for one in passes(*stack.shape[1:3]):
      codes = stack[..., one.rows, one.columns, plane]
      guess, bins = predictor.expect(plane, one)
      yield plane, one, codes - guess, bins
      predictor.learn(plane, one, codes, guess)
    predictor.finish(plane)


def _train(seen: _Seen, seed: int) -> dict[str, np.ndarray]:
  """Finds the weights of scales, none below zero, that make bits fewest."""
  planes = seen.off.shape[1]
  earlier = jnp.triu(jnp.ones((planes, planes)), 1)
  mean = jnp.asarray(seen.off.mean(axis=0) + 1e-2, jnp.float32)
  params = {
    'least': jnp.log(0.3 * jnp.broadcast_to(mean, (KINDS, planes))),
    'near': jnp.full((KINDS, planes), jnp.log(0.2)),
    'before': jnp.full((planes, planes), jnp.log(0.02)),
    'beside': jnp.full((planes, planes), jnp.log(0.005)),
  }
  optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, STEPS))
  state = optimizer.init(params)

  def bits(params, kind, near, off, beside):
    weights = jax.tree.map(jnp.exp, params)
    scale = weights['least'][kind] + weights['near'][kind] * near / _PARTS
    scale += off @ (earlier * weights['before'])
    scale += beside @ (earlier * weights['beside'])
    # A two-sided geometric distribution of about that mean absolute value.
    decay = scale / (1 + scale)
    costs = jnp.log1p(decay) - jnp.log1p(-decay) - off * jnp.log(decay)
    return jnp.mean(costs)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, *rows):
    gradients = jax.grad(bits)(params, *rows)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  rng = np.random.default_rng(seed)
  for _ in range(STEPS):
    which = rng.integers(len(seen.kind), size=_BATCH)
    kind, *rows = (x[which] for x in seen)
    params, state = step(params, state, kind, *map(np.float32, rows))
  weights = jax.device_get(jax.tree.map(jnp.exp, params))
  return {
    name: np.rint(np.minimum(_UNIT * np.float64(x), _LARGEST)).astype(np.int64)
    for name, x in weights.items()
  }


def _around(maps: np.ndarray, one: ScanPass) -> np.ndarray:
  """The mean of those that predict, in 1 / _PARTS: int64 [..., n].

  0 where there are none.
  """
  return np.sum(maps[(..., *one.near)] * one.parts, axis=-2)


def _beside(off: np.ndarray) -> np.ndarray:
  """The sum over the four sites next to each: [..., h, w]."""
  padded = np.pad(off, [(0, 0)] * (off.ndim - 2) + [(1, 1)] * 2)
  return (
    padded[..., :-2, 1:-1]
    + padded[..., 2:, 1:-1]
    + padded[..., 1:-1, :-2]
    + padded[..., 1:-1, 2:]
  )
