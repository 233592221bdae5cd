"""Sparse codes by iterative soft thresholding, which has a gradient.

I. Daubechies, M. Defrise and C. De Mol, "An iterative thresholding algorithm
for linear inverse problems with a sparsity constraint", CPAM 57(11), 2004.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.dictionary import normalize_atoms
from lasers_jax.coding.numbers import as_float32
from lasers_jax.coding.search import in_blocks, matmul


def soft_threshold(x: Array, threshold: Array | float) -> Array:
  """Moves each entry towards zero by a threshold, at most to zero."""
  return x - jnp.clip(x, -threshold, threshold)


@functools.partial(jax.jit, static_argnames='steps')
def ista(
  signals: Array, dictionary: Array, c: Array, penalty: float, steps: int
) -> Array:
  """Minimizes |z - A s|² / 2 + lambda |s|₁ by steps that start at s = 0.

  Each step is s <- soft(s + A'(z - A s) / c, lambda / c). None raises the value
  if c is at least the largest eigenvalue of A A', and they converge if c is
  more than half of it. Differentiable in all arrays; the gradient computes the
  codes of all steps anew, block by block.

  Args:
    signals: z, [N, D]; dictionary: A, [D, K]. Computed in float32.
    c: scalar, positive.
    penalty: lambda, not negative.
    steps: how many.

  Returns:
    s, float32 [N, K].
  """
  signals, atoms = as_float32(signals), as_float32(dictionary)
  c = as_float32(c)

  def solve(z: Array) -> Array:
    return _solve(steps, z, atoms, c, penalty / c)

  return in_blocks(solve, signals, atoms.shape[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solve(steps: int, z: Array, atoms: Array, c: Array, threshold: Array):
  """Takes the steps for a block of signals: [block, K]."""
  return _iterates(steps, z, atoms, c, threshold)[0]


def _iterates(steps, z, atoms, c, threshold):
  """Returns the last s, and before each step s and z - A s, stacked."""

  def step(s: Array, _) -> tuple[Array, tuple[Array, Array]]:
    rest = z - matmul(s, atoms.T)
    ahead = s + matmul(rest, atoms) / c
    return soft_threshold(ahead, threshold), (s, rest)

  start = jnp.zeros((z.shape[0], atoms.shape[1]), jnp.float32)
  return lax.scan(step, start, length=steps)


def _solve_forward(steps, *inputs):
  return _solve(steps, *inputs), inputs


def _solve_backward(steps, inputs, cotangent):
  """Goes back through the steps, which it takes anew.

  By hand, since what JAX keeps of each step took XLA:CPU twice as long.
  """
  _, atoms, c, _ = inputs
  last, iterates = _iterates(steps, *inputs)

  def back(carry, before):
    g, after, (to_z, to_atoms, to_c, to_threshold) = carry
    s, rest = before
    # Entries below the threshold are zero after the step, and stay so.
    g = jnp.where(after != 0, g, 0.0)
    pull = matmul(g, atoms.T) / c
    sums = (
      to_z + pull,
      to_atoms + matmul(rest.T, g) / c - matmul(pull.T, s),
      to_c - jnp.sum(rest * pull) / c,
      to_threshold - jnp.sum(g * jnp.sign(after)),
    )
    return (g - matmul(pull, atoms), s, sums), None

  zeros = jax.tree.map(jnp.zeros_like, inputs)
  start = cotangent, last, zeros
  return lax.scan(back, start, iterates, reverse=True)[0][2]


_solve.defvjp(_solve_forward, _solve_backward)


def largest_eigenvalue(dictionary: Array) -> Array:
  """Finds the largest eigenvalue of A A', A [D, K]; it has no gradient."""
  dictionary = as_float32(lax.stop_gradient(dictionary))
  return jnp.linalg.eigvalsh(matmul(dictionary, dictionary.T))[-1]


def dct_dictionary(d: int, k: int) -> Array:
  """Returns cosines of K frequencies: unit-norm columns [D, K].

  Atom j is cos(pi j (i + 1/2) / K), i = 0 ... D - 1. For K = D it is the
  orthonormal DCT-II, for more K the overcomplete DCT.
  """
  places = jnp.arange(d, dtype=jnp.float32)[:, None] + 0.5
  frequencies = jnp.arange(k, dtype=jnp.float32)[None] / k
  return normalize_atoms(jnp.cos(jnp.pi * places * frequencies))
