"""What integers cost in a file, before it is written."""

import math

import numpy as np

from lasers_jax.codec import symbols
from lasers_jax.codec.scales import Expected, ScalePredictor, Scales
from lasers_jax.codec.scan import scan
from lasers_jax.codec.tables import Tables, named


def prices(
  tables: Tables,
  codes: np.ndarray,
  limit: int,
  values: np.ndarray,
  name: str = '',
) -> np.ndarray:
  """Returns the bits of values, were all other integers those of `codes`.

  By contexts, where the tables have some, as `--context` fits them. What a
  value does to the price of those after it is not counted.

  Args:
    codes: int [h, w, planes], in [-limit, limit].
    values: int [..., h, w, planes], what each integer may be, in
      [-limit, limit].
    name: of the map, as in `Coder.numbers`.

  Returns:
    float32, of the shape of `values`. Those of the codes themselves add up to
    the length of the file but for its header and for the last word.
  """
  net = named(tables, name, Scales)
  if net is None:
    return _by_tables(tables, name, limit, values)
  planes = codes.shape[-1]
  predictor = ScalePredictor(net, limit, scan((codes.shape[:2],)))
  known = codes.reshape(-1, planes).T[predictor.order]
  asked = values.reshape(-1, known.shape[1], planes)
  asked = asked.transpose(2, 1, 0)[predictor.order]  # [planes, n, k]
  found = np.empty(asked.shape, np.float32)
  each = _Prices(net, limit)
  for part, steps in predictor.parts():
    for step in steps:
      expected = predictor.expect(part, step)
      predictor.learn(part, step, known[part, step.sites], expected)
      found[part, step.sites] = each(expected, asked[part, step.sites])
    predictor.finish(part)
  bits = np.empty_like(found)
  bits[predictor.order] = found
  return bits.transpose(2, 1, 0).reshape(values.shape)


class _Prices:
  """Prices values by what is expected."""

  def __init__(self, net: Scales, limit: int):
    self._common, self._rare = (-np.log2(x) for x in symbols.Shares.of(net))
    self._rare[:, -1] += math.log2(symbols.escapes(limit))

  def __call__(self, expected: Expected, values: np.ndarray) -> np.ndarray:
    """Returns the bits of values [p, m, k]."""
    shape = values.shape
    each = Expected(
      *(np.broadcast_to(x[..., None], shape).ravel() for x in expected)
    )
    first, others, second = symbols.of(each, values.ravel())
    bits = self._common[each.rows, first]
    if (dropped := symbols.dropped(each)) is not None:
      bits += dropped
    bits[others] += self._rare[each.rows[others], second]
    return bits.reshape(shape)


def _by_tables(tables, name, limit, values) -> np.ndarray:
  rows = [tables[f'{name}{k}'][0] for k in range(values.shape[-1])]
  weights = np.stack(rows)
  costs = -np.log2(weights / weights.sum(axis=1, keepdims=True))
  return costs[np.arange(len(rows)), values + limit].astype(np.float32)
