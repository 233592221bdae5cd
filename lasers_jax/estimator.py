"""Dictionary learning for people who know scikit-learn.

The names are those of sklearn.decomposition.MiniBatchDictionaryLearning where
the meaning is the same. Signals and atoms are rows here: X is [N, D], and
components_ [K, D].
"""

import numbers
import os
import sys

import jax
import numpy as np
import scipy.sparse
from sklearn.base import (
  BaseEstimator,
  ClassNamePrefixFeaturesOutMixin,
  TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from lasers_jax import coding
from lasers_jax.core.storage import opened, written_whole
from lasers_jax.errors import InputError
from lasers_jax.estimator_file import as_arrays, from_arrays

_LEARNERS = {
  'online': coding.online,
  'gradient': coding.gradient,
  'ksvd': coding.ksvd,
}
_SAMPLE = 4096  # signals that give the first atoms and measure error_
# Signals coded at once, the last ones padded: each size is compiled once.
_CHUNKS = (64, 256, 1024, 4096, 16384)


class DictionaryLearning(
  ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
  """Learns a dictionary in which each signal is a sum of a few atoms.

  Lowers the squared error of codes with at most `n_nonzero_coefs` atoms each,
  found by orthogonal matching pursuit. All is computed in float32, by JAX, on
  an accelerator where there is one; codes have the float type of X.

  Args:
    n_components: K, the atoms; None for as many as features, or as dict_init.
    n_nonzero_coefs: S, atoms that a signal may use, from 1 to K; None for a
      tenth of the features. (transform_n_nonzero_coefs in scikit-learn.)
    method: 'online' (Mairal et al. 2009), 'gradient' (Adam; better where the
      signals form clusters) or 'ksvd' (Aharon, Elad and Bruckstein 2006;
      requires a batch_size of 50 K / S or more).
    selection: of the next atom, 'omp' or 'ols'; see `coding.batch_omp`.
    batch_size: signals of one update. A shorter batch at the end weighs less.
    max_iter: passes over the data that `fit` makes at most.
    tol: `fit` ends with a pass that lowers error_ by no more than this fraction
      of it; 0 makes all passes.
    shuffle: whether each pass takes the signals in a new random order. In their
      own order they are read faster, where X is an np.memmap.
    dict_init: [K, D], the atoms to start from, of any length; None for signals
      drawn from X.
    transform_tol: `transform` adds no atom to a code once the norm of what is
      left of the signal is at most this; None for 0.
    sparse_output: whether `transform` returns scipy's CSR, not a dense array.
    random_state: int, RandomState or None.
    verbose: 1 shows the progress of `fit` on stderr.

  Attributes:
    components_: float32 [K, D], atoms of norm 1.
    error_: list: before and after each pass of `fit`, the squared error of up
      to 4096 of the signals, divided by their squared norms.
    n_iter_: passes that `fit` made; 1 where there was `partial_fit` alone.
    n_steps_, method_: updates in all, and by which method.
    n_features_in_, feature_names_in_: as in all of scikit-learn.
  """

  def __init__(
    self,
    n_components=None,
    n_nonzero_coefs=None,
    *,
    method='online',
    selection='omp',
    batch_size=1024,
    max_iter=100,
    tol=1e-3,
    shuffle=True,
    dict_init=None,
    transform_tol=None,
    sparse_output=False,
    random_state=None,
    verbose=0,
  ):
    self.n_components = n_components
    self.n_nonzero_coefs = n_nonzero_coefs
    self.method = method
    self.selection = selection
    self.batch_size = batch_size
    self.max_iter = max_iter
    self.tol = tol
    self.shuffle = shuffle
    self.dict_init = dict_init
    self.transform_tol = transform_tol
    self.sparse_output = sparse_output
    self.random_state = random_state
    self.verbose = verbose

  def fit(self, X, y=None):
    """Learns the dictionary anew from X [N, D]; y is ignored.

    X is read a batch at a time and never copied as a whole: an np.memmap of any
    type of number may be larger than the memory. Raises InputError where a
    parameter cannot be used, ValueError where an entry of X is not finite, or
    too large for float32.
    """
    X = validate_data(self, X, dtype='numeric')
    _check_range(X)
    sample, random = self._start(X)
    self.error_ = [self._error(sample)]
    total = self.max_iter * -(-len(X) // self.batch_size)
    with tqdm(
      total=total, disable=not self.verbose, file=sys.stderr, unit=' batches'
    ) as progress:
      for passes in range(1, self.max_iter + 1):
        order = random.permutation(len(X)) if self.shuffle else None
        self._learn(X, order, progress)
        self.n_iter_ = passes
        self.error_.append(self._error(sample))
        progress.set_postfix(error=f'{self.error_[-1]:.4f}')
        before, after = self.error_[-2:]
        if self.tol and before - after <= self.tol * before:
          progress.total = progress.n  # this is the end: a full bar
          break
    return self

  def partial_fit(self, X, y=None):
    """Goes on learning with X [N, D], a piece of a stream; y is ignored.

    The first piece gives the atoms to start from. Pieces may differ in length,
    best are multiples of batch_size. Raises as `fit` does, and InputError where
    method or n_components have been changed since: `fit` starts anew.
    """
    first = not hasattr(self, 'components_')
    if not first:
      self._check_unchanged()
    X = validate_data(self, X, dtype='numeric', reset=first)
    _check_range(X)
    if first:
      self._start(X)
      self.n_iter_ = 1
    self._learn(X)
    return self

  def transform(self, X):
    """Returns the codes of X [N, D]: [N, K], CSR with `sparse_output`.

    Raises ValueError where an entry is not finite, or too large for float32.
    """
    check_is_fitted(self)
    X = validate_data(self, X, dtype='numeric', reset=False)
    _check_range(X)
    dtype = np.float32 if X.dtype in (np.float16, np.float32) else np.float64
    k = len(self.components_)
    pieces = self._codes(X, self.transform_tol)
    if self.sparse_output:
      pieces = [_as_csr(atoms, values, k, dtype) for _, atoms, values in pieces]
      return scipy.sparse.vstack(pieces, format='csr')
    codes = np.zeros((len(X), k), dtype)
    for start, atoms, values in pieces:
      rows = np.arange(start, start + len(atoms))[:, None]
      codes[rows, atoms] = values
    return codes

  def inverse_transform(self, X):
    """Adds up the atoms of codes X [N, K], dense or sparse: signals [N, D]."""
    check_is_fitted(self)
    X = check_array(X, accept_sparse='csr', dtype=[np.float64, np.float32])
    k = len(self.components_)
    if X.shape[1] != k:
      raise InputError(
        f'the codes have {X.shape[1]} columns and the dictionary {k} atoms: '
        'give what transform returned'
      )
    return X @ self.components_.astype(X.dtype)

  def save(self, path: str | os.PathLike) -> None:
    """Writes the estimator to one .npz file, whole or not at all.

    After `load`, `partial_fit` goes on as if nothing had been. A random_state
    that is not an int becomes None.
    """
    check_is_fitted(self)
    with written_whole(path) as file:
      np.savez(file, **as_arrays(self))

  @classmethod
  def load(cls, path: str | os.PathLike) -> 'DictionaryLearning':
    """Reads what `save` wrote; nothing in the file is run.

    Raises InputError where the file is damaged or something else, OSError where
    it cannot be opened.
    """
    with opened(path) as file:
      try:
        with np.load(file, allow_pickle=False) as arrays:
          return from_arrays(cls, dict(arrays))
      except Exception as error:  # a damaged file may raise whatever it likes
        raise InputError(
          f'{os.fspath(path)!r} is damaged, or not what '
          'DictionaryLearning.save wrote: save the estimator again'
        ) from error

  @property
  def _n_features_out(self) -> int:
    return len(self.components_)

  def __sklearn_tags__(self):
    tags = super().__sklearn_tags__()
    tags.transformer_tags.preserves_dtype = ['float64', 'float32']
    return tags

  def _start(self, X) -> tuple[np.ndarray, np.random.RandomState]:
    """Draws a sample of X, and the first atoms from it."""
    k = self._atom_count()
    random = check_random_state(self.random_state)
    sample = _rows(X, random.permutation(len(X))[:_SAMPLE])
    atoms = self.dict_init
    if atoms is None:
      atoms = _first_atoms(sample, k, random)
    key = jax.random.PRNGKey(random.randint(2**31))
    self.method_ = self.method
    learner = self._learner(k)
    self._state = jax.jit(learner.init)(_unit_rows(atoms).T, key)
    self.components_ = _components(learner, self._state)
    self.n_steps_ = 0
    return sample, random

  def _learn(self, X, order=None, progress=None) -> None:
    """Makes one pass over X, in the order of the rows that are given."""
    learner = self._learner(len(self.components_))
    for start in range(0, len(X), self.batch_size):
      rows = slice(start, min(start + self.batch_size, len(X)))
      # Sorted, since a file is best read forward.
      rows = rows if order is None else np.sort(order[rows])
      batch = _padded(_rows(X, rows), self.batch_size)
      # One batch is read while another is learned, and no more of them wait.
      jax.block_until_ready(self._state)
      self._state = learner.update(self._state, batch)
      self.n_steps_ += 1
      if progress is not None:
        progress.update()
    self.components_ = _components(learner, self._state)

  def _codes(self, X, residual_norm=None):
    """Yields (start, atoms [n, S], coefficients [n, S]) for the rows of X."""
    k = len(self.components_)
    s = self._sparsity(k)
    options = {'selection': self.selection, 'residual_norm': residual_norm}
    dictionary = jax.numpy.asarray(self.components_.T)
    size = next((x for x in _CHUNKS if x >= len(X)), _CHUNKS[-1])
    for start in range(0, len(X), size):
      rows = _rows(X, slice(start, start + size))
      chunk, n = _padded(rows, size), len(rows)
      code = coding.batch_omp(chunk, dictionary, s, **options)
      yield start, np.asarray(code.atoms)[:n], np.asarray(code.coefficients)[:n]

  def _error(self, sample: np.ndarray) -> float:
    """The squared error of coding the sample, relative to its energy."""
    ((_, atoms, values),) = self._codes(sample)
    residuals = sample.astype(np.float64)
    for slot in range(atoms.shape[1]):
      residuals -= values[:, slot, None] * self.components_[atoms[:, slot]]
    energy = np.sum(sample.astype(np.float64) ** 2)
    return float(np.sum(residuals**2) / energy) if energy else 0.0

  def _learner(self, k: int) -> coding.Learner:
    return _LEARNERS[self.method_](self._sparsity(k), selection=self.selection)

  def _check_unchanged(self) -> None:
    """Raises InputError where parameters contradict what has been learned."""
    k = len(self.components_)
    if self._check_method() != self.method_:
      raise InputError(
        f'method was {self.method_!r} when learning began and is '
        f'{self.method!r} now: call fit to start anew'
      )
    if self.n_components not in (None, k):
      raise InputError(
        f'n_components is {self.n_components!r} and the dictionary has {k} '
        'atoms: call fit to start anew'
      )
    shape = self.components_.shape
    if self.dict_init is not None and np.shape(self.dict_init) != shape:
      raise InputError(
        f'dict_init has the shape {np.shape(self.dict_init)} and the '
        f'dictionary {shape}: call fit to start anew'
      )
    _check_whole('batch_size', self.batch_size)

  def _check_method(self) -> str:
    if self.method in _LEARNERS:
      return self.method
    known = ', '.join(_LEARNERS)
    raise InputError(f'there is no method {self.method!r}: it is {known}')

  def _atom_count(self) -> int:
    """K of the dictionary to be learned; checks the parameters of fitting."""
    d = self.n_features_in_
    self._check_method()
    _check_whole('batch_size', self.batch_size)
    _check_whole('max_iter', self.max_iter)
    if not self.tol >= 0:
      raise InputError(f'tol must be 0 or more, got {self.tol!r}')
    k = self.n_components
    if k is not None:
      _check_whole('n_components', k)
    if self.dict_init is None:
      return d if k is None else k
    shape = np.shape(self.dict_init)
    if len(shape) != 2 or shape != (shape[0] if k is None else k, d):
      raise InputError(
        f'dict_init must be [n_components, n_features] = [{k or "K"}, {d}], '
        f'got the shape {shape}'
      )
    return shape[0]

  def _sparsity(self, k: int) -> int:
    """S; checks the parameters of coding."""
    if self.selection not in ('omp', 'ols'):
      raise InputError(
        f'there is no selection {self.selection!r}: it is omp or ols'
      )
    tolerance = self.transform_tol
    if tolerance is not None and not tolerance >= 0:
      raise InputError(f'transform_tol must be 0 or more, got {tolerance!r}')
    if self.n_nonzero_coefs is None:
      return min(max(1, self.n_features_in_ // 10), k)
    _check_whole('n_nonzero_coefs', self.n_nonzero_coefs)
    if self.n_nonzero_coefs > k:
      raise InputError(
        f'n_nonzero_coefs = {self.n_nonzero_coefs} is more than the {k} atoms '
        'of the dictionary: lower it, or raise n_components'
      )
    return int(self.n_nonzero_coefs)


def _check_whole(name: str, value) -> None:
  if not isinstance(value, numbers.Integral) or value < 1:
    raise InputError(f'{name} must be a whole number from 1 up, got {value!r}')


def _check_range(X) -> None:
  """Raises ValueError where float32 does not hold X, which may be a file."""
  most = np.finfo(np.float32).max
  for start in range(0, len(X), _CHUNKS[-1]):
    piece = X[start : start + _CHUNKS[-1]]
    if piece.size and (piece.max() > most or piece.min() < -most):
      raise ValueError(
        f'X holds a value too large for float32, beyond {most:.4g}: scale it'
      )


def _rows(X, rows) -> np.ndarray:
  return np.asarray(X[rows], np.float32)


def _padded(rows: np.ndarray, n: int) -> np.ndarray:
  """Appends zeros up to n rows: their code is zero, and nothing is learned."""
  return np.pad(rows, ((0, n - len(rows)), (0, 0)))


def _first_atoms(sample: np.ndarray, k: int, random) -> np.ndarray:
  """Draws K signals, with a little noise to tell repeated ones apart."""
  n, d = sample.shape
  rows = sample[np.resize(random.permutation(n), k)].astype(np.float64)
  spread = np.sqrt(np.mean(rows**2)) or 1.0
  return rows / spread + 1e-2 * random.standard_normal((k, d))


def _unit_rows(atoms) -> np.ndarray:
  """Scales atoms [K, D] to norm 1, in float64; zero stays zero."""
  atoms = np.asarray(atoms, np.float64)
  norms = np.linalg.norm(atoms, axis=1, keepdims=True)
  return (atoms / np.where(norms > 0, norms, 1.0)).astype(np.float32)


def _components(learner: coding.Learner, state) -> np.ndarray:
  return np.array(np.asarray(learner.dictionary(state)).T, order='C')


def _as_csr(atoms: np.ndarray, values: np.ndarray, k: int, dtype):
  """Codes as a CSR matrix [n, K] with sorted columns and no stored zeros."""
  used = values != 0
  starts = np.concatenate([[0], np.cumsum(np.sum(used, axis=1))])
  entries = (values[used].astype(dtype), atoms[used], starts)
  codes = scipy.sparse.csr_matrix(entries, shape=(len(atoms), k))
  codes.sort_indices()
  return codes
