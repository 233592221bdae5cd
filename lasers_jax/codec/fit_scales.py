"""Fits `Scales` to maps of integers.

Means by least squares; then scales by descent on the bits of errors; then the
tables, by counting.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lasers_jax.codec import scales, symbols
from lasers_jax.codec.scales import ScalePredictor, Scales
from lasers_jax.codec.scan import PASSES, Scan, scan

STEPS = 3_000  # of training
_BATCH = 256
_LEARNING_RATE = 2e-2
_MOST = 2**18  # sites to fit to
_AT_ONCE = 2**14  # sites
_RIDGE = 3.0
_WORTH = 0.01  # of the squares, that a mean must explain
_SMOOTH = 0.6  # of the variance, that neighbours explain
_QUIET = 0.02  # mean absolute value
_TOTAL = 2**22  # sum of a row of weights
_PRIOR = 24  # errors that a row of a table counts as seen before


def fit(maps: Sequence[np.ndarray], limit: int, seed: int = 0) -> Scales:
  """Fits `Scales` to maps int [h, w, planes] of integers in [-limit, limit]."""
  rng = np.random.default_rng(seed)
  groups = list(_groups([maps[i] for i in rng.permutation(len(maps))]))
  net = _blank(maps[0].shape[-1])
  waves = _fit_waves(groups)
  classes = _classes(groups, waves)
  order = np.argsort(classes, kind='stable')
  groups = [(scan, values[:, order]) for scan, values in groups]
  net = net._replace(classes=classes, **_fit_means(net, groups))
  for i, k in enumerate(order):
    if classes[k] != scales.USUAL:
      net.own[..., i] = net.signed[..., i] = net.offset[i] = 0
    if classes[k] == scales.SMOOTH:
      slopes = waves[k][1]
      net.own[0, :, i], net.offset[i] = slopes[:4], slopes[4]
  off = [_look(net, limit, *group) for group in groups]
  net = net._replace(**_fit_scales(off, groups, net, rng))
  counts = [np.zeros(x.shape) for x in (net.common, net.scale_bins)]
  for group in groups:
    _count(net, limit, *group, counts)
  common, rare = (_weigh(x) for x in counts)
  return net._replace(common=common, scale_bins=rare)


def _groups(maps: list[np.ndarray]) -> Iterator[tuple[Scan, np.ndarray]]:
  """Yields some maps at a time: their scan, and integers [n, planes]."""
  some, count, total = [], 0, 0
  for i, one in enumerate(maps):
    some.append(one)
    count += one[..., 0].size
    last = i + 1 == len(maps) or total + count >= _MOST
    if last or count >= _AT_ONCE:
      sizes = tuple(x.shape[:2] for x in some)
      yield (
        scan(sizes),
        np.concatenate([x.reshape(-1, x.shape[2]) for x in some]),
      )
      total, some, count = total + count, [], 0
    if last:
      return


def _blank(planes: int) -> Scales:
  """Predicts 0, and expects nothing of how far off that is."""
  return Scales(*(np.zeros(x, np.int64) for x in scales.shapes(planes)))


def _classes(groups, waves) -> np.ndarray:
  """Which planes are smooth, and which are quiet."""
  count = sum(len(values) for _, values in groups)
  sizes = sum(np.abs(values).sum(axis=0) for _, values in groups) / count
  classes = np.where(sizes < _QUIET, scales.QUIET, scales.USUAL)
  smooth = [k for k, (worth, _) in enumerate(waves) if worth > _SMOOTH]
  classes[smooth[: scales.BLOCK]] = scales.SMOOTH
  return classes


def _fit_waves(groups) -> list[tuple[float, np.ndarray]]:
  """Least squares of the first planes, by those to the left and above.

  Returns of each the share of its variance that is explained, and the slopes
  and the offset [5].
  """
  found = []
  for k in range(min(groups[0][1].shape[1], scales.LEADING)):
    moments = 0
    for order, values in groups:
      wave = np.ones((6, len(values)))
      padded = np.append(values[:, k], 0)
      for step in order.waves:
        wave[:4, step.sites] = padded[step.near]
      wave[5] = values[:, k]
      moments += wave @ wave.T
    mean = moments[4, 5] / moments[4, 4]
    variance = moments[5, 5] - mean * moments[4, 5]
    slopes = np.linalg.solve(
      moments[:5, :5] + _RIDGE * np.eye(5), moments[:5, 5]
    )
    worth = slopes @ moments[:5, 5] - mean * moments[4, 5]
    offset = _slopes(slopes[4], scales.LARGEST)
    slopes = np.append(_slopes(slopes[:4]), offset)
    found.append((worth / max(variance, 1), slopes))
  return found


def _fit_means(net: Scales, groups) -> dict[str, np.ndarray]:
  """Least squares of every plane by those before and its own neighbours."""
  planes, leading = net.own.shape[2], len(net.signed)
  own = (PASSES - 1) * 4
  square, cross, with_own, among = 0, 0, 0, 0
  for order, values in groups:
    padded = np.pad(values, ((0, 1), (0, 0))).astype(np.float32)
    x = _signed(order, values[:, :leading])
    near = np.zeros((own, len(values), planes), np.float32)
    for step in order.passes:
      if step.near is not None:
        some = slice(4 * step.kind - 4, 4 * step.kind)
        near[some, step.sites] = padded[step.near]
    y = padded[:-1]
    square += x.T @ x
    cross += x.T @ y
    with_own += np.stack([x.T @ o for o in near])
    among += np.stack([[np.sum(a * b, 0) for a in near] for b in (*near, y)])
  found = {
    k: np.zeros_like(getattr(net, k)) for k in ('offset', 'own', 'signed')
  }
  variance = _squares(groups)
  for k in range(planes):
    n = 1 + 5 * min(k, leading)
    both = with_own[:, :n, k]
    a = np.block([[square[:n, :n], both.T], [both, among[:own, :, k]]])
    b = np.concatenate([cross[:n, k], among[own, :, k]])
    w = np.linalg.solve(a + _RIDGE * np.eye(len(b)), b)
    if w @ b > _WORTH * variance[k]:
      found['offset'][k] = _slopes(w[0], scales.LARGEST)
      found['signed'][: n // 5, :, k] = _slopes(w[1:n]).reshape(-1, 5)
      found['own'][1:, :, k] = _slopes(w[n:]).reshape(-1, 4)
  return found


def _squares(groups) -> np.ndarray:
  return sum(np.sum(np.float64(values) ** 2, axis=0) for _, values in groups)


def _signed(order: Scan, values: np.ndarray) -> np.ndarray:
  """One, and leading planes at each site and beside it: [n, 1 + 5 leading]."""
  each = np.stack([values, *values[order.beside]], axis=-1)
  each = each.reshape(len(values), -1)
  return np.pad(each, ((0, 0), (1, 0)), constant_values=1).astype(np.float32)


def _slopes(x, most: int = scales.STEEPEST) -> np.ndarray:
  found = np.rint(scales.SLOPE * np.asarray(x))
  return np.clip(found, -most, most).astype(np.int64)


def _look(net: Scales, limit: int, order: Scan, values) -> np.ndarray:
  """How far off the means of integers are: uint8 [n + 1, planes]; 0 at last."""
  off = np.zeros((len(values) + 1, values.shape[1]), np.uint8)
  predictor = ScalePredictor(net, limit, order)
  for planes, steps in predictor.parts():
    for step in steps:
      some = values[step.sites, planes].T
      predictor.learn(planes, step, some, predictor.expect(planes, step))
    off[:-1, planes] = predictor.finish(planes).T
  return off


def _count(net: Scales, limit: int, order: Scan, values, counts) -> None:
  """Counts the symbols of errors by rows."""
  predictor = ScalePredictor(net, limit, order)
  for planes, steps in predictor.parts():
    for step in steps:
      some = values[step.sites, planes].T
      expected = predictor.expect(planes, step)
      predictor.learn(planes, step, some, expected)
      flat = scales.Expected(*(x.ravel() for x in expected))
      common, others, rare = symbols.of(flat, some.ravel())
      np.add.at(counts[0], (flat.rows, common), 1)
      np.add.at(counts[1], (flat.rows[others], rare), 1)
    predictor.finish(planes)


def _fit_scales(off, groups, net: Scales, rng) -> dict[str, np.ndarray]:
  """Finds the weights of scales, none below zero, that make bits fewest."""
  draw = _Rows(off, groups, net)
  planes, count = draw.off.shape[1], draw.causes.shape[1]
  mean = jnp.asarray(draw.off.mean(axis=0, dtype=float) + 1e-4, jnp.float32)
  start = np.log([0.02, 0.005, 0.005]).reshape(1, 3, 1)
  params = {
    'least': jnp.log(0.3 * jnp.broadcast_to(mean, (PASSES, planes))),
    'near': jnp.full((PASSES, planes), jnp.log(0.05)),
    'spread': jnp.full(planes, jnp.log(0.02)),
    'sizes': jnp.broadcast_to(jnp.float32(start), (count, 3, planes)),
  }
  weights = functools.partial(_weights, net.classes)
  optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, STEPS))
  state = optimizer.init(params)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, *rows):
    gradients = jax.grad(lambda x: _bits(weights(x), *rows))(params)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  for _ in range(STEPS):
    params, state = step(params, state, *draw(rng))
  return _as_integers(jax.device_get(weights(params)))


def _weights(classes: np.ndarray, params: dict) -> dict:
  """Those of causes that are known, given their logarithms."""
  parts = scales.parts(classes)
  known = [
    scales.causes(part.start)
    for part, _ in parts
    for _ in range(part.start, part.stop)
  ]
  earlier = np.arange(len(params['sizes']))[:, None] < known
  found = jax.tree.map(jnp.exp, params)
  kinds = np.sort(classes)
  return {
    'least': found['least'],
    'near': found['near'] * (kinds != scales.QUIET)[None],
    'spread': found['spread'] * (kinds == scales.SMOOTH),
    'sizes': found['sizes'] * earlier[:, None],
  }


def _bits(weights, at, off, near, spread, seen):
  """The mean bits of errors [b, planes]; `at` is the pass of each."""
  planes = jnp.arange(off.shape[1])[None]
  least, close = (weights[x][at, planes] for x in ('least', 'near'))
  scale = least + close * near + weights['spread'][None] * spread
  sizes = weights['sizes'].reshape(-1, off.shape[1])
  scale += seen.reshape(len(seen), -1) @ sizes
  # The two-sided geometric distribution of this mean absolute value.
  decay = scale / (1 + jnp.sqrt(1 + scale**2))
  costs = jnp.log1p(decay) - jnp.log1p(-decay) - off * jnp.log(decay)
  return jnp.mean(costs)


class _Rows:
  """Draws sites: what was there to see, and what came."""

  def __init__(self, off, groups, net: Scales):
    self._kinds = np.sort(net.classes)
    self._waves = waves = int(np.sum(self._kinds == scales.SMOOTH))
    orders = [order for order, _ in groups]
    self._spread = np.concatenate([_spread(*x, waves) for x in groups])
    self.off = np.concatenate(off)
    starts = np.cumsum([0, *(len(x) for x in off)])[:-1]
    pairs = list(zip(orders, starts, strict=True))
    self._sites = np.concatenate([i + np.arange(o.count) for o, i in pairs])
    self._beside = np.concatenate([i + o.beside for o, i in pairs], axis=1)
    each = [(i, o, _near(o)) for o, i in pairs]
    self._kind = np.concatenate([kind for _, _, (kind, _, _) in each])
    self._near = np.concatenate([i + x for i, _, (_, x, _) in each], axis=1)
    self._wave = np.concatenate([i + x for i, _, (_, _, x) in each], axis=1)
    single, others = np.split(self.off, [scales.SINGLE], axis=1)
    others = others[:, : others.shape[1] // scales.GROUP * scales.GROUP]
    sums = others.reshape(len(others), -1, scales.GROUP).sum(axis=2)
    sums = np.minimum(sums, scales.FARTHEST).astype(np.uint8)
    self.causes = np.concatenate([single, sums], axis=1)

  def __call__(self, rng: np.random.Generator) -> tuple[Any, ...]:
    """Returns passes, errors, those near, spreads [b, planes]; causes."""
    which = rng.integers(len(self._sites), size=_BATCH)
    sites = self._sites[which]
    near = self.off[self._near[:, which]].sum(axis=0, dtype=np.float32)
    waves = self.off[self._wave[:, which], : self._waves]
    near[:, : self._waves] = waves.sum(axis=0)
    spread = np.zeros_like(near)
    spread[:, : self._waves] = self._spread[which]
    left, right, above, below = self.causes[self._beside[:, which]]
    sides = self.causes[sites], left + right, above + below
    seen = np.stack(sides, axis=2).astype(np.float32)
    usual = self._kinds == scales.USUAL
    at = np.where(usual, self._kind[which, None], 0)
    return at, self.off[sites].astype(np.float32), near, spread, seen


def _spread(order: Scan, values: np.ndarray, waves: int) -> np.ndarray:
  """How far the four neighbours of smooth planes are apart: [n, waves]."""
  found = np.zeros((len(values), waves), np.uint8)
  padded = np.pad(values[:, :waves], ((0, 1), (0, 0)))
  for step in order.waves:
    near = np.moveaxis(padded[step.near], -1, 0)
    found[step.sites] = scales.spread(near).T
  return found


def _near(order: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The pass of each site [n], those near in it, and in its wave [4, n]."""
  kind = np.zeros(order.count, np.int32)
  near, wave = np.full((2, 4, order.count), order.count)
  for step in order.passes:
    kind[step.sites] = step.kind
    if step.near is not None:
      near[:, step.sites] = step.near
  for step in order.waves:
    wave[:, step.sites] = step.near
  return kind, near, wave


def _as_integers(weights) -> dict[str, np.ndarray]:
  found = {
    name: np.minimum(scales.UNIT * np.float64(x), scales.LARGEST)
    for name, x in weights.items()
  }
  # No sum may reach what float32 holds.
  most = np.array([1, 2, 2])[:, None] * scales.FARTHEST
  highest = np.sum(most * found['sizes'], axis=(0, 1))
  room = scales.EXACT - len(found['sizes']) * np.sum(most)  # for rounding
  found['sizes'] *= np.minimum(1, room / np.maximum(highest, 1))
  found['least'] += 1
  return {name: np.rint(x).astype(np.int64) for name, x in found.items()}


def _weigh(counts: np.ndarray) -> np.ndarray:
  """Makes a table of counts [ROWS, size]: int64 weights, all positive.

  A row with few counts is near those of its scale, and these near the mean of
  all. Nothing is given to all symbols alike: what never came costs 22 bits.
  """
  size = counts.shape[1]
  total = counts.sum(axis=0) + 0.5
  each = counts.reshape(scales.BINS, scales.FRACTIONS, size)
  bins = each.sum(axis=1, keepdims=True)
  mean = _mixed(bins, total / total.sum())
  found = _mixed(each, mean).reshape(-1, size)
  weights = np.maximum(1, np.rint(_TOTAL * found)).astype(np.int64)
  # Sums are the same power of two, so that shares are exact.
  top = weights.argmax(axis=1)
  weights[np.arange(len(top)), top] += _TOTAL - weights.sum(axis=1)
  return weights


def _mixed(counts: np.ndarray, prior: np.ndarray) -> np.ndarray:
  seen = counts.sum(axis=-1, keepdims=True)
  return (counts + _PRIOR * prior) / (seen + _PRIOR)
