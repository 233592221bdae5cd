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
  more than half of it. Differentiable in all arrays; the gradient keeps z - A s
  of all steps, and computes s anew from it, block by block.

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
  return _solve_forward(steps, z, atoms, c, threshold)[0]


def _solve_forward(steps, z, atoms, c, threshold):
  """Keeps z - A s of each step, from which s follows by half the products."""

  def step(s: Array, _) -> tuple[Array, Array]:
    rest = z - matmul(s, atoms.T)
    return _ahead(s, rest, atoms, c, threshold), rest

  last, rests = lax.scan(step, _zeros(z, atoms), length=steps)
  return last, (z, atoms, c, threshold, rests)


def _ahead(s: Array, rest: Array, atoms: Array, c: Array, threshold: Array):
  """Returns the next s, where z - A s is the rest."""
  return soft_threshold(s + matmul(rest, atoms) / c, threshold)


def _zeros(z: Array, atoms: Array) -> Array:
  return jnp.zeros((z.shape[0], atoms.shape[1]), jnp.float32)


def _solve_backward(steps, residuals, cotangent):
  """Goes back through the steps, whose codes it computes anew.

  By hand, since what JAX keeps of each step took XLA:CPU twice as long.
  """
  del steps
  *inputs, rests = residuals
  z, atoms, c, threshold = inputs

  def again(s: Array, rest: Array) -> tuple[Array, Array]:
    return _ahead(s, rest, atoms, c, threshold), s

  last, codes = lax.scan(again, _zeros(z, atoms), rests)

  def pass_threshold(g: Array, after: Array) -> tuple[Array, Array]:
    # Entries below the threshold are zero after the step, and stay so.
    g = jnp.where(after != 0, g, 0.0)
    return g, -jnp.sum(g * jnp.sign(after))

  def back(carry, before):
    g, (to_z, to_atoms, to_c, to_threshold) = carry
    s, rest = before
    pull = matmul(g, atoms.T) / c
    to_z += pull
    to_atoms += matmul(rest.T, g) / c - matmul(pull.T, s)
    to_c -= jnp.sum(rest * pull) / c
    g, change = pass_threshold(g - matmul(pull, atoms), s)
    return (g, (to_z, to_atoms, to_c, to_threshold + change)), None

  g, to_threshold = pass_threshold(cotangent, last)
  start = g, (*map(jnp.zeros_like, (z, atoms, c)), to_threshold)
  return lax.scan(back, start, (codes, rests), reverse=True)[0][1]


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
