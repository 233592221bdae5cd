"""In which order, and by which tables, the codes of an image are coded."""

import functools
import math
from typing import Any

import numpy as np

from lasers_jax.bottlenecks import (
  MQVAE,
  Bottleneck,
  Lasers,
)
from lasers_jax.bottlenecks.base import LookUp
from lasers_jax.bottlenecks.continuous import Numbers
from lasers_jax.bottlenecks.dense import Dense
from lasers_jax.bottlenecks.fsq import Scalars
from lasers_jax.bottlenecks.integers import Integers
from lasers_jax.bottlenecks.mqvae import MaskedCodes
from lasers_jax.bottlenecks.wrappers import Copies
from lasers_jax.codec.coder import Coder
from lasers_jax.coding import SparseCode
from lasers_jax.errors import InputError

Sites = tuple[int, int]


@functools.singledispatch
def transfer(
  bottleneck: Bottleneck,
  coder: Coder,
  sites: Sites,
  codes: Any = None,
  name: str = '',
) -> Any:
  """Leads a coder through the codes of one image.

  Args:
    bottleneck: whose codes they are.
    coder: counts, weighs, writes or reads.
    sites: H and W of the latent.
    codes: what `bottleneck.encode` gives for a latent [H, W, D], as NumPy
      arrays; None for a reader.
    name: what the names of tables begin with.

  Returns:
    The codes.

  Raises:
    InputError: the code is continuous.
  """
  raise InputError(
    f'{type(bottleneck).__name__} has a continuous code, which no file holds'
  )


def _planes(coder, name, codes, sites, sizes, dtype=np.int32):
  """Integers [h, w, C] from 0 on."""
  return coder.planes(name, codes, sites, sizes).astype(dtype)


def _plane(coder, name, codes, sites, size):
  """Integers [h, w] from 0 on."""
  planes = None if codes is None else codes[..., None]
  return _planes(coder, name, planes, sites, [size])[..., 0]


@transfer.register
def _(bottleneck: LookUp, coder, sites, codes=None, name=''):
  return _plane(coder, name, codes, sites, bottleneck.K)


@transfer.register
def _(bottleneck: Scalars, coder, sites, codes=None, name=''):
  """Numbers of one table where there are few; else each level by itself."""
  levels = bottleneck.levels
  total = math.prod(levels)
  dtype = np.int32 if total <= 2**31 else np.uint32
  radices = [total] if bottleneck.symbols == total else levels
  planes = None if codes is None else _digits(codes, radices)
  planes = _planes(coder, name, planes, sites, radices, dtype=np.int64)
  return (planes @ _places(radices)).astype(dtype)


def _places(radices) -> np.ndarray:
  """What a digit is worth: the first the least, as `coding.finite` has it."""
  return np.cumprod([1, *radices[:-1]], dtype=np.int64)


def _digits(codes, radices) -> np.ndarray:
  wide = codes.astype(np.int64)[..., None]
  return wide // _places(radices) % np.array(radices, np.int64)


@transfer.register
def _(bottleneck: Integers, coder, sites, codes=None, name=''):
  limit, count = bottleneck.limit, bottleneck.D
  return coder.numbers(name, codes, sites, limit, count).astype(np.int32)


@transfer.register
def _(bottleneck: Numbers, coder, sites, codes=None, name=''):
  if bottleneck.bits is None:
    return transfer.dispatch(object)(bottleneck, coder, sites, codes, name)
  sizes = [2**bottleneck.bits] * bottleneck.D
  return _planes(coder, name, codes, sites, sizes)


@transfer.register
def _(bottleneck: Copies, coder, sites, codes=None, name=''):
  return tuple(
    transfer(
      bottleneck.inner,
      coder,
      sites,
      None if codes is None else codes[i],
      f'{name}{i}/',
    )
    for i in range(bottleneck.count)
  )


@transfer.register
def _(bottleneck: MQVAE, coder, sites, codes=None, name=''):
  n = math.prod(sites)
  m = bottleneck.kept(n)
  positions, inner = (codes.positions, codes.inner) if codes else (None, None)
  positions = coder.subset(positions, m, n).astype(np.int32)
  inner = transfer(bottleneck.inner, coder, (1, m), inner, f'{name}kept/')
  return MaskedCodes(positions, inner, *sites)


@transfer.register
def _(bottleneck: Lasers, coder, sites, codes=None, name=''):
  """Sets of atoms, then the levels of their coefficients, given the atom.

  First how many there are, where each site has its own number.
  """
  if bottleneck.coefficient_bits is None:
    raise InputError(
      'coefficients are stored as float32: set bottleneck.coefficient_bits'
    )
  p, s, k = bottleneck.patch, bottleneck.S, bottleneck.K
  sites = sites[0] // p, sites[1] // p
  atoms, levels = (None, None) if codes is None else codes
  counts = np.full(sites, s)
  if bottleneck.tolerance is not None:
    counts = None if atoms is None else np.sum(atoms < k, axis=-1)
    counts = _plane(coder, f'{name}counts', counts, sites, s + 1)
  atoms = coder.sets(f'{name}atoms', atoms, counts, k, s)
  taken = atoms < k
  read = np.zeros(atoms.shape, np.int32)
  read[taken] = coder.table(
    f'{name}levels',
    levels if levels is None else levels[taken],
    np.sum(taken),
    2**bottleneck.coefficient_bits,
    atoms[taken],
    k,
  )
  return SparseCode(atoms.astype(np.int32), read)


@transfer.register
def _(bottleneck: Dense, coder, sites, codes=None, name=''):
  """The largest first: the order says something of how large they are."""
  if bottleneck.keep is None:
    return transfer.dispatch(object)(bottleneck, coder, sites, codes, name)
  atoms, values = (None, None) if codes is None else codes
  sizes = [bottleneck.K] * bottleneck.keep
  atoms = _planes(coder, f'{name}atoms/', atoms, sites, sizes)
  sizes = [2**bottleneck.value_bits] * bottleneck.keep
  values = _planes(coder, f'{name}values/', values, sites, sizes)
  return SparseCode(atoms, values)
