"""Opens a data set by the scheme of its name."""

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from lasers_jax.core.ranges import check
from lasers_jax.data.folder import open_folder
from lasers_jax.data.parquet import open_parquet
from lasers_jax.data.photos import open_photos
from lasers_jax.data.records import open_records
from lasers_jax.data.sources import SOURCES, OpenSource, Source
from lasers_jax.data.tar import open_tar
from lasers_jax.data.tfds import open_tfds
from lasers_jax.errors import InputError, nearest

_OTHERWISE = 'tfds'  # the scheme of a name that has none


def register_source(scheme: str, open_: OpenSource) -> None:
  """Registers the function that opens names `scheme:rest` and `scheme`.

  Args:
    scheme: letters, digits and underscores.
    open_: see `OpenSource`.

  Raises:
    ValueError: the scheme has other letters.
  """
  if not scheme.isidentifier():
    raise ValueError(f'a scheme is letters, digits and _, not {scheme!r}')
  SOURCES[scheme] = open_


register_source('photos', open_photos)
register_source('folder', open_folder)
register_source('tfds', open_tfds)
register_source('records', open_records)
register_source('tar', open_tar)
register_source('parquet', open_parquet)


def open_source(
  name: str,
  split: str,
  workdir: str | None = None,
  options: Mapping[str, Any] | None = None,
) -> Source:
  """Opens one split of the source called `name`, checked and ready.

  Args:
    name: `scheme:rest`, or a scheme alone: 'photos', 'folder:/my/images',
      'tfds:cifar10'. A name without a scheme is one of tfds: 'mnist',
      'name/config', 'name:version'.
    split: the name of the split in that source.
    workdir: see `OpenSource`.
    options: keyword arguments of the function that opens the source; see
      `open_photos`, `open_folder`, `open_tfds`.

  Raises:
    InputError: the name, split, an option or the data cannot be used.
  """
  scheme, _, rest = name.partition(':')
  if scheme not in SOURCES:
    scheme, rest = _OTHERWISE, name
  open_, options = SOURCES[scheme], options or {}
  _check_options(open_, scheme, options)
  return open_(rest, split, workdir, **options)


def _check_options(open_: OpenSource, scheme: str, options: Mapping) -> None:
  """Raises InputError where options are not as a function declares them."""
  kinds = typing.get_type_hints(open_, include_extras=True)
  parameters = inspect.signature(open_).parameters
  known = {
    name: f'data.options.{name}'
    for name, parameter in parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
  }
  for key, value in options.items():
    path = f'data.options.{key}'
    if key not in known:
      near = nearest(key, known) or '; leave it out'
      raise InputError(f'the data {scheme!r} has no option {path}{near}')
    check(value, kinds.get(key), path)
  for key, path in known.items():
    if (
      parameters[key].default is inspect.Parameter.empty and key not in options
    ):
      raise InputError(f'the data {scheme!r} requires the option {path}')
