"""Coefficients of atoms, stored as one of a few learned levels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.coding.scalar import (
  nearest_level,
  spread_levels,
  update_levels,
  update_sizes,
)

# Of the size of an atom's coefficients, per use of the atom. They grow fast at
# first: where the outermost level lags behind, commitment holds latents back.
SIZE_DECAY = 0.99


class Coefficients(nn.Module):
  """Stores coefficients as levels, in units of the usual size of their atom.

  Attributes:
    K: atoms.
    bits: b of a coefficient, for 2^b levels of all atoms; None stores float32.
    decay: of the moving averages that the levels are.
  """

  K: int
  bits: int | None
  decay: float

  def setup(self):
    self.sizes = self.variable(
      'codebook', 'sizes', jnp.ones, (self.K,), jnp.float32
    )
    if self.bits is not None:
      even = jnp.linspace(-1.0, 1.0, dtype=jnp.float32)
      self.levels = self.variable(
        'codebook', 'levels', spread_levels, even, 2**self.bits
      )

  def usual(self) -> Array:
    """Returns the usual size of the coefficients of each atom: [K]."""
    return self.sizes.value

  def multiples(self) -> Array:
    """Returns the levels, multiples of the usual size: [2^b], ascending."""
    return self.levels.value.values

  def store(self, atoms: Array, coefficients: Array) -> Array:
    """Returns the levels of coefficients of atoms, arrays of one shape."""
    if self.bits is None:
      return coefficients
    return nearest_level(coefficients / self.usual()[atoms], self.multiples())

  def read(self, atoms: Array, stored: Array) -> Array:
    """Returns the coefficients of stored levels."""
    if self.bits is None:
      return stored
    return self.multiples()[stored] * self.usual()[atoms]

  def energies(self, name: str) -> dict[str, np.ndarray]:
    """Returns the sizes of all coefficients, for `Bottleneck.energies`.

    They are [K, 2^b], usual size times multiple, under the name; none where
    coefficients are stored as float32.
    """
    if self.bits is None:
      return {}
    multiples = np.abs(np.asarray(self.multiples()))
    return {name: np.asarray(self.usual())[:, None] * multiples[None]}

  def fit(self, coefficients: Array) -> None:
    """Starts with one size for all atoms, and levels at the quantiles."""
    size = _size(coefficients)
    self.sizes.value = jnp.full(self.K, size, jnp.float32)
    if self.bits is not None:
      multiples = coefficients / size
      self.levels.value = spread_levels(multiples, 2**self.bits)

  def fit_coarsely(self, key: Array, coefficients: Array) -> None:
    """Starts with atoms of all the sizes there are, and levels within ±2.

    If levels are few, it is the atoms that must be large and small.
    """
    assert self.bits is not None  # float32 needs no spread
    drawn = jnp.abs(coefficients).ravel()
    sizes = jax.random.choice(key, drawn, (self.K,))
    self.sizes.value = jnp.maximum(sizes, 0.1 * _size(coefficients))
    lowest = -2.0 if self.bits else 0.0
    spread = jnp.linspace(lowest, 2.0, 1000, dtype=jnp.float32)
    self.levels.value = spread_levels(spread, 2**self.bits)

  def forget(self, atoms: Array) -> None:
    """Gives some atoms, by a mask [K], the median size."""
    usual = jnp.median(self.sizes.value)
    self.sizes.value = jnp.where(atoms, usual, self.sizes.value)

  def track(
    self, atoms: Array, coefficients: Array, stored: Array, weights: Array
  ) -> None:
    """Moves sizes and levels towards a batch: four arrays of one shape."""
    if self.bits is not None:
      multiples = coefficients / self.usual()[atoms]
      self.levels.value = update_levels(
        self.levels.value, multiples, stored, weights, self.decay
      )
    self.sizes.value = update_sizes(
      self.usual(), coefficients, atoms, weights, SIZE_DECAY
    )


def _size(coefficients: Array) -> Array:
  """The root of the mean square, and above zero."""
  return jnp.maximum(jnp.sqrt(jnp.mean(coefficients**2)), 1e-12)
