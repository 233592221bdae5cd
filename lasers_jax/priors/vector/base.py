"""The contract of priors, drawing on many devices, and their file.

A prior is a frozen dataclass of settings. It learns its state from latents: a
flat dict of arrays, so that a file of it loads anywhere.
"""

import abc
import dataclasses
import functools
import numbers
import os
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lasers_jax.coding.search import take
from lasers_jax.core.arrays import read_with_header, write_arrays
from lasers_jax.core.ranges import check_fields
from lasers_jax.core.storage import one_line
from lasers_jax.errors import InputError

State = dict[str, Array | np.ndarray]
Carry = TypeVar('Carry')

# Numbers drawn at once: the random bits take several times their room.
_PIECE = 2**24
_CHUNK = 2**14  # rows that the host works on at once


@dataclasses.dataclass(frozen=True)
class Prior(abc.ABC):
  """Draws new latents like those it was fitted on.

  The settings are the fields; two priors of equal settings are equal. Raises
  InputError where one is out of its range.
  """

  has_density: ClassVar[bool] = False

  def __post_init__(self):
    check_fields(self)

  @abc.abstractmethod
  def fit(self, latents, seed: int = 0) -> State:
    """Learns the state from latents [n, d].

    The state may hold the latents themselves and not a copy: leave them alone.

    Raises:
      InputError: NaN or infinite latents, or too few of them.
    """

  @abc.abstractmethod
  def sample(self, state: State, key: Array, n: int) -> Array:
    """Draws float32 [n, d]; a pure function, for `jax.jit` with n static."""

  def check(self, state: State) -> None:
    """Raises an error if a state read from a file cannot be of `fit`.

    It checks that all arrays are there, that their shapes fit together, that
    numbers are finite float32, and integers not negative. A prior adds its
    own checks.
    """
    for name, x in state.items():
      floats = x.dtype == np.float32
      if not (floats or x.dtype.kind in 'iu'):
        raise ValueError(f'{name} is of the type {x.dtype}')
      if not (np.isfinite(x) if floats else x >= 0).all():
        raise ValueError(f'{name} holds what cannot be')
    key = jax.random.key(0)
    drawn = jax.eval_shape(lambda s, k: self.sample(s, k, 2), state, key)
    if drawn.ndim != 2 or drawn.shape[0] != 2 or drawn.dtype != np.float32:
      raise ValueError(f'it draws {drawn.dtype} {drawn.shape}')

  def log_prob(self, state: State, x) -> Array:
    """Returns the log density at x [m, d]: float32 [m], in nats."""
    raise NotImplementedError(f'{type(self).__name__} has no density')


def check_latents(latents, minimum: int = 1) -> np.ndarray:
  """Returns latents as float32 [n, d], without a copy where they are that.

  Args:
    latents: [n, d], finite.
    minimum: rows that are needed.

  Raises:
    InputError: another number of axes, no or too few rows, no columns, NaN or
      infinite values.
  """
  with np.errstate(over='ignore'):  # what overflows is found below
    latents = np.asarray(latents, np.float32)
  if latents.ndim != 2:
    raise InputError(
      f'latents must be [n, d], got the shape {latents.shape}: one row for '
      'each image or site'
    )
  n, d = latents.shape
  if not n or not d:
    raise InputError(f'there are no latents to fit: got the shape ({n}, {d})')
  if n < minimum:
    raise InputError(
      f'{n} latents are too few: the prior needs {minimum} or more'
    )
  for start, rows in host_chunks(latents):
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
      raise InputError(
        'latents hold NaN or infinite values, first in row '
        f'{start + int(finite.argmin())}: fit on those of a model that trained'
      )
  return latents


def check_points(x, d: int) -> np.ndarray | Array:
  """Returns x as float32 [m, d]; raises ValueError for any other shape."""
  x = x if isinstance(x, Array) else np.asarray(x)
  if x.ndim != 2 or x.shape[1] != d:
    raise ValueError(f'points must be [m, {d}], got the shape {x.shape}')
  return x.astype(np.float32)


def draw(
  prior: Prior,
  state: State,
  key: Array,
  n: int,
  mesh: Mesh | None = None,
) -> Array:
  """Draws n latents, compiled, on one device or on all of a mesh.

  Many of them come in pieces, each from its own key, so that 1,000,000 of
  d = 256 take 2 GB beside the state, half of it for the result. The numbers
  depend on the key and on n alone, not on the mesh.

  Args:
    prior, state: what `fit` returned, or `load`.
    key: of `jax.random`.
    n: at least 1.
    mesh: splits the rows along its first axis, with a copy of the state on
      every device; None for the default device.

  Returns:
    float32 [n, d].

  Raises:
    InputError: n is no whole number from 1 up.
  """
  if not isinstance(n, numbers.Integral) or n < 1:
    raise InputError(f'n must be a whole number from 1 up, got {n!r}')
  home = None if mesh is None else NamedSharding(mesh, PartitionSpec())
  state = {name: jax.device_put(x, home) for name, x in state.items()}
  one = jax.eval_shape(lambda s, k: prior.sample(s, k, 1), state, key)
  most = max(1, _PIECE // one.shape[1])
  sizes = [min(most, n - start) for start in range(0, n, most)]
  keys = [key] if len(sizes) == 1 else jax.random.split(key, len(sizes))
  pieces = [
    _draw_piece(prior, state, key, size, mesh)[:size]
    for key, size in zip(keys, sizes, strict=True)
  ]
  return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces)


def save(
  path: str | os.PathLike,
  prior: Prior,
  state: State,
  about: dict[str, str],
) -> None:
  """Writes a fitted prior to one .npz file, whole or not at all.

  Args:
    about: the origin of its latents, such as the hash of a model's weights;
      `load` compares it.
  """
  header = {
    'prior': _name(type(prior)),
    'settings': dataclasses.asdict(prior),
    'about': about,
  }
  arrays = {name: np.asarray(x) for name, x in state.items()}
  write_arrays(path, arrays, header)


def load(
  path: str | os.PathLike, about: dict[str, str] | None = None
) -> tuple[Prior, State]:
  """Reads what `save` wrote; nothing in the file is run.

  Args:
    about: values that must have been saved under these names; None for any.

  Raises:
    InputError: there is no such file, it is damaged or something else, of a
      prior that is not in PRIORS, or `about` differs.
  """
  path = os.fspath(path)
  try:
    header, state = read_with_header(path)
    name, settings, kept = header['prior'], header['settings'], header['about']
    if not isinstance(name, str) or not all(
      isinstance(x, dict) for x in (settings, kept)
    ):
      raise ValueError(f'it says {header}')
  except FileNotFoundError as error:
    raise InputError(f'there is no prior at {path}: fit one first') from error
  except InputError:
    raise
  except (ValueError, KeyError, TypeError) as error:
    raise _damaged(path, error) from error
  for key, value in (about or {}).items():
    if kept.get(key) != value:
      raise InputError(
        f'{path} was fitted for another model: {key} is {kept.get(key)} there '
        f'and {value} here; fit the prior again'
      )
  prior = _make(path, name, settings)
  try:
    prior.check(state)
  except Exception as error:  # drawing from what does not fit may raise any
    raise _damaged(path, error) from error
  return prior, state


def _damaged(path: str, error: Exception) -> InputError:
  return InputError(
    f'{path} is damaged, or no file of a prior: {one_line(error)}; remove '
    'it, and fit the prior again'
  )


def host_chunks(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (start, a view of some rows) for all rows."""
  for start in range(0, len(rows), _CHUNK):
    yield start, rows[start : start + _CHUNK]


def fold_rows(
  step: Callable[[Carry, Array, Array], Carry],
  carry: Carry,
  rows: Array,
  size: int = 4096,
) -> Carry:
  """Folds a function over rows [n, d], chunk by chunk, without a copy of them.

  step: (carry, chunk [c, d], counted, bool [c]) -> carry. The last chunk
  reaches back over rows that were there before: these are not counted.
  """
  n = rows.shape[0]
  size = min(size, n)

  def body(i: Array, carry: Carry) -> Carry:
    start = jnp.minimum(i * size, n - size)
    chunk = lax.dynamic_slice_in_dim(rows, start, size)
    return step(carry, chunk, start + jnp.arange(size) >= i * size)

  return lax.fori_loop(0, -(-n // size), body, carry)


def pick_cells(key: Array, counts: Array, n: int) -> Array:
  """Draws n cells of each histogram in proportion to its counts.

  Args:
    counts: int32 [blocks, cells], of one sum in every block, at least 1.

  Returns:
    int32 [n, blocks]; an empty cell never comes. O(n blocks log cells).
  """
  # Whole numbers: rounding takes nothing from a cell that is hardly filled.
  ends = jnp.cumsum(counts, axis=1)
  blocks, cells = counts.shape
  ball = jax.random.randint(key, (n, blocks), 0, ends[:1, -1:])
  # The cell is how many ends are not above the ball. This search by halves is
  # a vmap of `searchsorted`, which takes twice the time on a CPU.
  first = cells * jnp.arange(blocks)[None]
  num_downsamples = (cells - 1).bit_length()

  def halve(i: Array, below: Array) -> Array:
    ahead = below + (2**num_downsamples >> i + 1)
    end = take(ends.reshape(-1), first + jnp.minimum(ahead, cells) - 1)
    return jnp.where(end <= ball, ahead, below)

  return lax.fori_loop(0, num_downsamples, halve, jnp.zeros_like(ball))


@functools.partial(jax.jit, static_argnames=('prior', 'n', 'mesh'))
def _draw_piece(
  prior: Prior, state: State, key: Array, n: int, mesh: Mesh | None
) -> Array:
  """Rows [n, d], and with a mesh more, up to a number that it divides."""
  x = prior.sample(state, key, n)
  if mesh is None:
    return x
  axis = mesh.axis_names[0]
  x = jnp.pad(x, ((0, -n % mesh.shape[axis]), (0, 0)))
  home = NamedSharding(mesh, PartitionSpec(axis))
  return lax.with_sharding_constraint(x, home)


def _table() -> dict[str, type[Prior]]:
  # Here, since that package imports this file.
  from lasers_jax.priors.vector import PRIORS

  return PRIORS


def _name(kind: type[Prior]) -> str:
  return {other: name for name, other in _table().items()}[kind]


def _make(path: str, name: str, settings: dict) -> Prior:
  if name not in _table():
    raise InputError(
      f'{path} holds a prior {name!r}, and those known are '
      f'{", ".join(_table())}: fit one of them'
    )
  known = {x.name: x.default for x in dataclasses.fields(_table()[name])}
  if not settings.keys() <= known.keys():
    raise InputError(
      f'{path} has settings that {name} does not know: {sorted(settings)}; '
      'fit the prior again'
    )
  try:
    for key, value in settings.items():
      if not _is_like(value, known[key]):
        raise ValueError(f'{key} is {value!r}')
    return _table()[name](**settings)
  except ValueError as error:
    raise _damaged(path, error) from error


def _is_like(value, default) -> bool:
  """Whether a value of JSON is of the type of a setting's default."""
  if isinstance(default, float | None):
    return type(value) in (int, float) or value is default is None
  return type(value) is type(default)
