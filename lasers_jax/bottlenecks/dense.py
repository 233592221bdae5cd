"""Codes of one number for each of K atoms: all, or the largest as integers."""

from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Bottleneck,
  fixed_length_bits,
  relative_error,
  site_mean,
  use_stats,
)
from lasers_jax.bottlenecks.coder import Coder, Sites, transfer_planes
from lasers_jax.bottlenecks.parts import Parts, strongest_first
from lasers_jax.bottlenecks.rates import Asked, Fields
from lasers_jax.coding import SparseCode
from lasers_jax.coding.keep import keep_largest
from lasers_jax.coding.search import linear
from lasers_jax.core.ranges import Count, Range, Several

_RATED_BITS = 4  # of a coefficient, where settings are solved for a rate


class Dense(Bottleneck):
  """Codes each site by a number for each of K atoms, most of them zero.

  A subclass defines these numbers, `_values(z)` [..., K], and `_atoms()`,
  [D, K]; and for the numbers that are stored `_round`, to integers from 0 on,
  and its inverse `_restore`, both of a SparseCode.

  Attributes:
    K: atoms.
    keep: the numbers that are stored; None stores all K as float32, and is
      continuous.
    coefficient_bits: bits of a stored number, where `keep` is set.
  """

  counted_by = 'keep'

  K: Several = 512
  keep: Count | None = None
  coefficient_bits: Annotated[int, Range(1, 24)] = 8

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    """Returns the fields of few pairs of an atom, of 16 to 4096, and 4 bits."""
    for pairs in range(1, asked.d + 1):
      atom_bits = asked.bits / pairs - _RATED_BITS
      if 4 <= atom_bits <= 12 and atom_bits == int(atom_bits):
        k = 2 ** int(atom_bits)
        return {'K': k, 'keep': pairs, 'coefficient_bits': _RATED_BITS}
    raise ValueError(
      f'{asked.bits} bits a site are not pairs of an atom (4 to 12 bits) and '
      f'a coefficient of {_RATED_BITS} bits'
    )

  def check(self) -> None:
    super().check()
    if self.keep is not None and self.keep > self.K:
      raise ValueError(
        f'keep must be None or from 1 to K = {self.K}, got {self.keep}'
      )

  @property
  def bits_per_site(self) -> float | None:
    if self.keep is None:
      return None
    return self.keep * (fixed_length_bits(self.K) + self.coefficient_bits)

  @property
  def symbols(self) -> int:
    return 0 if self.keep is None else self.K

  def indices(self, codes: SparseCode) -> Array:
    return codes.atoms

  def encode(self, z: Array) -> Array | SparseCode:
    """Codes z [..., D]: the numbers float32 [..., K].

    With `keep`, SparseCode of [..., keep]: the atoms of the largest numbers,
    and these rounded to int32.
    """
    return self._store(self._values(z))

  def decode(self, codes: Array | SparseCode) -> Array:
    """Adds up the atoms: float32 [..., D]."""
    if not isinstance(codes, SparseCode):
      return self._combine(codes)
    values, m = self._restore(codes), codes.atoms.shape[-1]
    flat = SparseCode(codes.atoms.reshape(-1, m), values.reshape(-1, m))
    rows = coding.reconstruct(flat, self._atoms())
    return rows.reshape(*codes.atoms.shape[:-1], self.D)

  def parts(self, codes: Any) -> Parts | None:
    if self.keep is None:
      return None
    values, rest = self._restore(codes), jnp.zeros(self.D, jnp.float32)
    return strongest_first('atom', codes.atoms, values, self._atoms().T, rest)

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> SparseCode:
    """Codes the atoms of a site, and the integers; the largest come first."""
    if self.keep is None:
      return super().transfer(coder, sites, codes, name)
    atoms, values = (None, None) if codes is None else codes
    sizes = [self.K] * self.keep
    atoms = coder.distinct(f'{name}atoms/', atoms, sites, sizes)
    sizes = [2**self.coefficient_bits] * self.keep
    values = transfer_planes(coder, f'{name}values/', values, sites, sizes)
    return SparseCode._make((atoms.astype(np.int32), values))  # of NumPy arrays

  def _combine(self, values: Array) -> Array:
    rows = linear(values.reshape(-1, self.K), self._atoms().T)
    return rows.reshape(*values.shape[:-1], self.D)

  def _store(self, values: Array) -> Array | SparseCode:
    if self.keep is None:
      return values
    kept = self._kept(values)
    return SparseCode(kept.atoms, self._round(kept))

  def _kept(self, values: Array) -> SparseCode:
    assert self.keep is not None  # else all are stored
    return keep_largest(values, self.keep)

  def _stats(self, z, quantized, values, codes, mask) -> dict[str, Array]:
    active = jnp.sum(values != 0, axis=-1, dtype=jnp.float32)
    stats = {
      'relative_error': relative_error(z, quantized, mask),
      'active': site_mean(active, mask),
    }
    if self.keep is not None:
      stats.update(use_stats(codes.atoms, self.K, mask)[1])
    return stats
