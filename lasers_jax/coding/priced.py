"""Integers over a dictionary, each at a price: error plus the price of bits.

Minimizes J(q) = |x - A q|² + λ Σ c(q_k) over integers q, where c are bits by
the two-sided geometric law. Its bits rise by the same with every unit of |q|,
so J differs from |x - A q|² + Σ p_k |q_k|, p_k = λ times these bits, by what no
choice changes. Over orthogonal atoms each integer is chosen by itself, in
closed form; over others by single changes of integers, as transform coders and
matching pursuits with a Lagrangian cost do (e.g. K. Ramchandran and M.
Vetterli, "Rate-distortion optimal fast thresholding", IEEE Trans. Image
Processing 3, 1994). Signals are in units of the step of the integers.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.numbers import as_float32, check_shapes, finite_rows
from lasers_jax.coding.search import in_blocks, largest, matmul, take

MOST_STEPS = 256  # changes of integers of a site, from each start
_MOST = 2.0**20  # steps: larger signals are coded as this
# Below this fall of J rounding counts, and a pursuit could go round in circles.
_LEAST = 1e-4


def geometric_bits(means: Array) -> tuple[Array, Array]:
  """Returns the bits of zero, and those of each further unit of |v|.

  Of the law p(v) = (1 - θ) / (1 + θ) θ^|v| of all integers v, whose mean
  absolute value is that given: θ = (√(1 + m²) - 1) / m. The bits of v are
  `zero + unit |v|`.

  Args:
    means: m, positive, of any shape.
  """
  theta = means / (1 + jnp.sqrt(1 + means**2))
  zero = jnp.log2((1 + theta) / (1 - theta))
  return zero, -jnp.log2(theta)


def priced_integers(values: Array, prices: Array, limit: int) -> Array:
  """Returns the integers v that minimize (x - v)² + p |v|: int32.

  At a price of zero they are the nearest.

  Args:
    values: x, float32 of any shape.
    prices: p, of a unit of |v|; 0 or more, of a shape that broadcasts.
    limit: the largest |v|.
  """
  return _shrunk(values, prices, limit).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames='limit')
def priced_pursuit(
  signals: Array,
  dictionary: Array,
  prices: Array,
  limit: int,
  steps: int | Array = MOST_STEPS,
) -> Array:
  """Codes each signal by integers q of a low |x - A q|² + Σ p |q|.

  Each step changes the one integer that lowers this most, to its best value;
  the lowest index wins a tie. It goes on until no change lowers it, or `steps`
  are taken: once from zero, and once from the minimum over the first D atoms
  alone. The better of the two ends is the code. There is no gradient.

  Args:
    signals: x, float32 [N, D]. One with an entry that is not finite is coded
      as if it were zero.
    dictionary: A, float32 [D, K], K >= D; its first D columns are orthogonal.
      With K = D there is no loop, and the minimum is exact.
    prices: p, float32 [N, K] or [1, K], of a unit of |q|; 0 or more.
    limit: the largest |q|.
    steps: changes from each start, at most.

  Returns:
    int32 [N, K], in [-limit, limit].

  Raises:
    ValueError: the shapes do not fit, or K is below D.
  """
  check_shapes(
    signals=(signals, 'N D'),
    dictionary=(dictionary, 'D K'),
    prices=(prices, 'M K'),
  )
  d, k = dictionary.shape
  if k < d:
    raise ValueError(f'the dictionary must have K >= D = {d} atoms, got {k}')
  signals, dictionary, prices = (
    as_float32(lax.stop_gradient(x)) for x in (signals, dictionary, prices)
  )
  signals = jnp.clip(finite_rows(signals), -_MOST, _MOST)
  prices = jnp.broadcast_to(prices, (len(signals), k))
  squares = jnp.sum(dictionary**2, axis=0, keepdims=True)
  squares = jnp.where(squares > 0, squares, 1.0)
  gram = matmul(dictionary.T, dictionary)

  def code(sites) -> Array:
    x, p = sites
    products = matmul(x, dictionary[:, :d]) / squares[:, :d]
    apart = _shrunk(products, p[:, :d] / squares[:, :d], limit)
    if k == d:
      return apart.astype(jnp.int32)
    apart = jnp.pad(apart, ((0, 0), (0, k - d)))
    ends = []
    for start in (apart, jnp.zeros_like(apart)):
      h = matmul(x - matmul(start, dictionary.T), dictionary)
      q = _descend(start, h, p, gram, squares, limit, steps)
      rest = x - matmul(q, dictionary.T)
      cost = jnp.sum(rest**2, axis=1) + jnp.sum(p * jnp.abs(q), axis=1)
      ends.append((q, cost))
    (first, cost), (second, other) = ends
    return jnp.where((cost <= other)[:, None], first, second).astype(jnp.int32)

  return in_blocks(code, (signals, prices), k)


def _shrunk(values: Array, prices: Array, limit: int) -> Array:
  """Does what `priced_integers` does, in float32.

  A convex function of integers has its minimum at the integer nearest to that
  of the parabola, which the price moves to |x| - p / 2.
  """
  size = jnp.round(jnp.abs(values) - prices / 2)
  return jnp.sign(values) * jnp.clip(size, 0, limit)


def _descend(q, h, prices, gram, squares, limit, steps) -> Array:
  """Changes one integer of each site after the other while J falls.

  Args:
    q: [b, K], the start, integers as float32.
    h: [b, K], products of the atoms with x - A q.
    prices: [b, K]; gram: [K, K]; squares: [1, K], squared norms of atoms.
  """
  columns = jnp.arange(q.shape[1], dtype=jnp.int32)[None]

  def look(q, h):
    """Finds the best change: its atom [b], how far it goes, and the fall."""
    best = _shrunk(q + h / squares, prices / squares, limit)
    change = best - q
    fall = change * (2 * h - squares * change)
    fall -= prices * (jnp.abs(best) - jnp.abs(q))
    atom = largest(fall)
    chosen = jnp.take_along_axis(
      jnp.stack([change, fall]), atom[None, :, None], axis=2
    )[..., 0]
    return atom, jnp.where(chosen[1] > _LEAST, chosen[0], 0.0)

  def go_on(state):
    count, _, _, _, change = state
    return (count < steps) & jnp.any(change != 0)

  def step(state):
    count, q, h, atom, change = state
    q += jnp.where(columns == atom[:, None], change[:, None], 0.0)
    h -= change[:, None] * take(gram, atom)
    return count + 1, q, h, *look(q, h)

  start = jnp.int32(0), q, h, *look(q, h)
  return lax.while_loop(go_on, step, start)[1]
