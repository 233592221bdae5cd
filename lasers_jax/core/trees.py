"""Nested dictionaries."""

from collections.abc import Mapping
from typing import Any


def merge(a: Mapping, b: Mapping) -> dict:
  """Returns nested dictionaries, overruled by those of another one."""
  both = {
    k: merge(a.get(k, {}), v) for k, v in b.items() if isinstance(v, Mapping)
  }
  return {**a, **b, **both}


def without(a: Mapping, b: Mapping) -> dict[str, Any]:
  """Returns nested dictionaries less the leaves that another one has."""
  left = {}
  for key, value in a.items():
    if key not in b:
      left[key] = value
    elif isinstance(value, Mapping) and (inner := without(value, b[key])):
      left[key] = inner
  return left


def within(a: Mapping, b: Mapping) -> dict[str, Any]:
  """Returns the leaves of nested dictionaries that another one has, too."""
  return {
    key: within(value, b[key]) if isinstance(value, Mapping) else value
    for key, value in a.items()
    if key in b
  }
