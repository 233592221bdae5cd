"""Arrays of a tokenizer, and what its networks expect of them."""

import functools
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax.errors import InputError
from lasers_jax.networks import NETWORKS

Arrays = Mapping[str, np.ndarray]


class Networks(NamedTuple):
  """Holds what arrays say of a tokenizer; see `Tokenizer`."""

  network: dict[str, Any]
  params: dict[str, Any]
  codebook: np.ndarray | None


def expected(network: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the shapes of the parameters of networks.

  Args:
    network: the section of a config.

  Returns:
    {'encoder': ..., 'decoder': ...}; not to be changed.
  """
  return _expected(tuple(sorted(network.items())))


@functools.lru_cache(maxsize=8)  # Flax takes half a second for one
def _expected(network: tuple[tuple[str, Hashable], ...]) -> dict[str, Any]:
  fields = dict(network)
  encoder, decoder = (kind(**fields) for kind in NETWORKS[fields.pop('name')])
  images = jnp.zeros((1, encoder.f, encoder.f, 3))
  latents = jnp.zeros((1, 1, 1, encoder.D))
  key = jax.random.key(0)
  return {
    'encoder': jax.eval_shape(encoder.init, key, images)['params'],
    'decoder': jax.eval_shape(decoder.init, key, latents)['params'],
  }


def shape(arrays: Arrays, name: str, rank: int) -> tuple[int, ...]:
  """Returns the shape of an array.

  Raises:
    InputError: it is missing, empty or of another rank.
  """
  if name not in arrays:
    raise InputError(
      f'the weights lack the array {name}: they are of another network, or not '
      'the whole of it.'
    )
  found = arrays[name].shape
  if len(found) != rank or not all(found):
    raise InputError(
      f'the array {name} of the weights is {list(found)}, not of rank {rank}'
    )
  return found


def check_all_read(
  arrays: Arrays, used: Iterable[str], left_out: tuple[str, ...] = ()
) -> None:
  """Raises InputError where an array is not used.

  Args:
    left_out: how the names begin of arrays of something else.
  """
  for name in sorted(arrays.keys() - set(used)):
    if not name.startswith(left_out):
      raise InputError(
        f'the array {name} has no place in the network that the others describe'
      )
