"""Reads sections of a config: their keys are fields of dataclasses, modules."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lasers_jax.core.ranges import check
from lasers_jax.errors import InputError, nearest, unknown


def filled(kind: type, section: Mapping, none: Callable) -> dict[str, Any]:
  """Returns a section with the defaults of a dataclass (or module)."""
  fields = fields_of(kind)
  return {
    name: none(fields[name].type) if value is None and name in fields else value
    for name, value in {**defaults(kind), **section}.items()
  }


def defaults(kind: type) -> dict[str, Any]:
  """Returns the defaults of a dataclass (or module) as values of a config."""
  found = {}
  for f in fields_of(kind).values():
    if f.default is not dataclasses.MISSING:
      found[f.name] = f.default
    elif f.default_factory is not dataclasses.MISSING:
      found[f.name] = f.default_factory()
  if 'dtype' in found:
    found['dtype'] = jnp.dtype(found['dtype']).name
  return found


def fields_of(kind: type) -> dict[str, dataclasses.Field]:
  """Returns the fields of a dataclass or module that a config may name."""
  fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
  if issubclass(kind, nn.Module):  # These two are Linen's own.
    del fields['parent'], fields['name']
  for name in getattr(kind, 'GIVEN', ()):
    del fields[name]
  return fields


def section(given: Any, name: str) -> Mapping[str, Any]:
  """Returns a section of a config; raises InputError where it is none."""
  if not isinstance(given, Mapping):
    raise InputError(f'{name} must be a section of keys, not {given!r}')
  return given


def choose(table: Mapping[str, Any], section: Mapping, where: str) -> Any:
  """Returns what the `name` of a section names in a table."""
  name = section.get('name')
  if not isinstance(name, str) or name not in table:
    raise unknown(f'{where}.name', name, table)
  return table[name]


def with_dtype(section: Mapping, where: str) -> dict[str, Any]:
  """Returns a section with its `dtype`, if any, as a dtype."""
  if 'dtype' not in section:
    return dict(section)
  name = section['dtype']
  if name not in ('float32', 'bfloat16'):
    raise InputError(f'{where}.dtype must be float32 or bfloat16: {name!r}')
  return {**section, 'dtype': jnp.dtype(name)}


def build(kind: type, section: Mapping, where: str, given=None, also=()) -> Any:
  """Builds a dataclass (or module) from a section; see `read`."""
  given = given or {}
  return kind(**read(kind, section, where, given, also), **given)


def read(
  kind: type, section: Mapping, where: str, given=(), also=()
) -> dict[str, Any]:
  """Checks a section that names the fields of a dataclass (or module).

  Args:
    given: fields that come from elsewhere; the section must not name them.
    also: keys that are read elsewhere, to know the nearest name.
  """
  fields = {k: f for k, f in fields_of(kind).items() if k not in given}
  dot = where and f'{where}.'
  for key, value in section.items():
    path = f'{dot}{key}'
    if key in fields:
      check(value, fields[key].type, path)
    else:
      raise InputError(
        f'nothing reads the config key {path}'
        + nearest(str(key), {x: f'{dot}{x}' for x in (*fields, *also)})
      )
  missing = [
    name
    for name, f in fields.items()
    if f.default is f.default_factory is dataclasses.MISSING
    and name not in section
  ]
  if missing:
    raise InputError(f'the config has no {dot}{missing[0]}')
  return {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
