"""Coding of single vectors: pure functions of arrays."""

from lasers_jax.coding.codebook import (
  CodebookStatistics,
  follow_signals,
  histogram,
  kmeans,
  nearest_code,
  sinkhorn,
  update_codebook,
)
from lasers_jax.coding.dictionary import (
  OnlineStatistics,
  forget_atoms,
  init_statistics,
  normalize_atoms,
  normalize_codes,
  pick_signals,
  random_codes,
  random_dictionary,
  update_dictionary,
  update_statistics,
)
from lasers_jax.coding.distances import squared_distances
from lasers_jax.coding.learning import (
  Learner,
  LearnerState,
  Revive,
  gradient,
  ksvd,
  ksvd_sweep,
  online,
)
from lasers_jax.coding.omp import (
  CountedCode,
  SparseCode,
  batch_omp,
  batch_omp_path,
  reconstruct,
  with_fit_gradient,
)
from lasers_jax.coding.revival import (
  Revival,
  choose_revivals,
  find_twins,
  revive_atoms,
)
from lasers_jax.coding.rounded import RoundedCode, rounded_pursuit

__all__ = [
  'CodebookStatistics',
  'CountedCode',
  'Learner',
  'LearnerState',
  'OnlineStatistics',
  'Revival',
  'Revive',
  'RoundedCode',
  'SparseCode',
  'batch_omp',
  'batch_omp_path',
  'choose_revivals',
  'find_twins',
  'follow_signals',
  'forget_atoms',
  'gradient',
  'histogram',
  'init_statistics',
  'kmeans',
  'ksvd',
  'ksvd_sweep',
  'nearest_code',
  'normalize_atoms',
  'normalize_codes',
  'online',
  'pick_signals',
  'random_codes',
  'random_dictionary',
  'reconstruct',
  'revive_atoms',
  'rounded_pursuit',
  'sinkhorn',
  'squared_distances',
  'update_codebook',
  'update_dictionary',
  'update_statistics',
  'with_fit_gradient',
]
