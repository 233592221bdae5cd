"""How one vector is coded: pure functions of arrays."""

from lasers_jax.coding.codebook import (
  CodebookStatistics,
  histogram,
  nearest_code,
  update_codebook,
)
from lasers_jax.coding.dictionary import (
  OnlineStatistics,
  init_statistics,
  normalize_atoms,
  pick_signals,
  random_dictionary,
  update_dictionary,
  update_statistics,
)
from lasers_jax.coding.omp import (
  SparseCode,
  batch_omp,
  batch_omp_path,
  reconstruct,
)
from lasers_jax.coding.revival import Revival, choose_revivals
from lasers_jax.coding.scalar import dequantize, quantize

__all__ = [
  'CodebookStatistics',
  'OnlineStatistics',
  'Revival',
  'SparseCode',
  'batch_omp',
  'batch_omp_path',
  'choose_revivals',
  'dequantize',
  'histogram',
  'init_statistics',
  'nearest_code',
  'normalize_atoms',
  'pick_signals',
  'quantize',
  'random_dictionary',
  'reconstruct',
  'update_codebook',
  'update_dictionary',
  'update_statistics',
]
