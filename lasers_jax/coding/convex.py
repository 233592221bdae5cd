"""Signals as convex combinations of codes.

T. Gautam, R. Pryzant, Z. Yang, C. Zhu and S. Sojoudi, "Soft convex
quantization: revisiting vector quantization with convex optimization", L4DC
2024, arXiv 2310.03004.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.codebook import nearest_code
from lasers_jax.coding.numbers import as_float32
from lasers_jax.coding.search import in_blocks, matmul

# Of the trace of C'C: below this fraction, float32 rounds by more than lambda.
_SMALLEST_FRACTION = 1e-6


@jax.jit
def project_simplex(values: Array) -> Array:
  """Finds the nearest point with entries that are >= 0 and sum to 1.

  By Newton steps for the threshold (Michelot 1986): each leaves out entries
  that are below it, until none is. The gradient is that of the projection on
  the face where the point lies.

  Args:
    values: float32 [..., K].

  Returns:
    [..., K].
  """
  # The projection does not see a shift, and numbers near zero are exact.
  top = jnp.max(values, axis=-1, keepdims=True)
  values = values - lax.stop_gradient(top)
  held = lax.stop_gradient(values)
  positive = held > _threshold(held)
  excess = jnp.sum(jnp.where(positive, values, 0.0), axis=-1, keepdims=True) - 1
  threshold = excess / jnp.sum(positive, axis=-1, keepdims=True)
  return jnp.where(positive, jnp.maximum(values - threshold, 0.0), 0.0)


def _threshold(values: Array) -> Array:
  """Finds t for which max(x - t, 0) sum to 1: float32 [..., 1].

  From below, where each step is to a root of fewer entries, a larger t.

  Args:
    values: float32 [..., K], with a maximum of 0.
  """

  def step(state):
    threshold, count, _ = state
    above = values > threshold
    fewer = jnp.sum(above, axis=-1, keepdims=True)
    total = jnp.sum(jnp.where(above, values, 0.0), axis=-1, keepdims=True)
    # Rounding must not turn back, or steps could go on forever.
    further = jnp.maximum(threshold, (total - 1) / fewer)
    return further, fewer, jnp.any(fewer < count)

  # The largest entry is 1 above t at most.
  start = jnp.full_like(values[..., :1], -1.0)
  everything = jnp.full(start.shape, values.shape[-1] + 1)
  state = start, everything, jnp.array(True)
  return lax.while_loop(lambda state: state[2], step, state)[0]


@jax.jit
def convex_weights(signals: Array, codebook: Array, penalty: float) -> Array:
  """Solves for the weights of the codes (algorithm 2, the relaxation).

  Finds the p that minimizes |z - C'p|² + lambda |p - q|², where q is 1 at the
  nearest code and 0 elsewhere, and projects it on the simplex. The gradient
  goes through both, to signals and codes; q is constant.

  The minimum is q + C (C'C + lambda I)⁻¹ (z - C'q), C [K, D] being the
  codebook. By the Woodbury identity this is the solution of the K×K system,
  at less cost, and without cancellation.

  Args:
    signals: [N, D]; codebook: [K, D]. Computed in float32.
    penalty: lambda, at least 1e-3. It is raised to 1e-6 of the codebook's
      squared norm where that is more.

  Returns:
    float32 [N, K], rows on the simplex.
  """
  signals, codebook = as_float32(signals), as_float32(codebook)
  nearest = nearest_code(*lax.stop_gradient((signals, codebook)))
  gram = matmul(codebook.T, codebook)
  least = _SMALLEST_FRACTION * lax.stop_gradient(jnp.trace(gram))
  gram = gram + jnp.maximum(penalty, least) * jnp.eye(
    gram.shape[0], dtype=jnp.float32
  )
  solver = jax.scipy.linalg.solve(gram, codebook.T, assume_a='pos')  # [D, K]

  def solve(sites: tuple[Array, Array]) -> Array:
    z, which = sites
    start = jax.nn.one_hot(which, codebook.shape[0], dtype=jnp.float32)
    return project_simplex(start + matmul(z - codebook[which], solver))

  return in_blocks(solve, (signals, nearest), codebook.shape[0])
