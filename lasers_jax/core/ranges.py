"""Ranges of fields: declared in their annotations, checked here.

steps: Count
final: Fraction = 0.0
bits: Annotated[int, Range(1, 12)] | None = None
weights: Annotated[Mapping[str, Amount], {'size': Number}]
"""

import dataclasses
import math
import struct
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from lasers_jax.errors import InputError, shown

_MOST_INT = 2**31 - 1
_LEAST_FLOAT = 2.0**-126  # what is smaller is 0 where XLA computes


@dataclasses.dataclass(frozen=True)
class Range:
  """Holds the numbers from `low` to `high`; for a tuple, of its length.

  All are finite in float32, whole ones without a `high` are of 32 bits, and an
  end that does not belong to it stands for all that float32 rounds to it.

  Attributes:
    low, high: None for no such end.
    ends: '[' and ']' for ends that belong to it, '(' and ')' for others.
    also: one number more.
  """

  low: float | None = None
  high: float | None = None
  ends: str = '[]'
  also: float | None = None

  def __contains__(self, value: float) -> bool:
    if value == self.also:
      return True
    low = -math.inf if self.low is None else self.low
    high = math.inf if self.high is None else self.high
    above = low < _single(value) if self.ends[0] == '(' else low <= value
    below = _single(value) < high if self.ends[1] == ')' else value <= high
    return above and below

  def __str__(self) -> str:
    words = []
    if self.low is not None:
      word = 'more than' if self.ends[0] == '(' else 'at least'
      words.append(f'{word} {self.low:.10g}')
    if self.high is not None:
      word = 'less than' if self.ends[1] == ')' else 'at most'
      words.append(f'{word} {self.high:.10g}')
    text = ' and '.join(words)
    return text if self.also is None else f'{text}, or {self.also:g}'


Whole = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
Several = Annotated[int, Range(2)]
Counts = Annotated[tuple[Count, ...], Range(1)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Number = Annotated[float, Range()]
Amount = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, ends='(]')]
Fraction = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, '[)')]


def check(value: Any, kind: Any, path: str) -> None:
  """Raises InputError for an unfit value; the message says what it must be.

  Args:
    kind: an annotation: of a number, True or False, text, tuples and mappings
      of these, and None; values of others are not checked. Beside a mapping
      stand the kinds of names that have one of their own.
    path: the key of the value.
  """
  base, interval = _parts(kind)
  if not _fits(value, base, interval):
    raise InputError(f'{path} is {_shown(value)}: it must be {say(kind)}')
  if value is None:
    return
  base, beside = _parts(_without_none(kind))
  if _is_list(base):
    for i, item in enumerate(value):
      check(item, typing.get_args(base)[0], f'{path}[{i}]')
  elif typing.get_origin(base) is Mapping:
    for name, item in value.items():
      each = (beside or {}).get(name, typing.get_args(base)[1])
      check(item, each, f'{path}.{name}')


def check_fields(thing: Any) -> None:
  """Raises InputError if a field of a dataclass is out of its range."""
  for field in dataclasses.fields(thing):
    check(getattr(thing, field.name), field.type, field.name)


def declared(owner: type, name: str) -> Any:
  """Returns the annotation of a field of a dataclass."""
  return {field.name: field.type for field in dataclasses.fields(owner)}[name]


def read(text: str, kind: Any) -> Any:
  """Reads a number, or text, from words of a command line.

  An empty text is None, if the kind has it.

  Raises:
    ValueError: it is not of the kind; the message says what it must be.
  """
  inner = _without_none(kind)
  if not text and inner is not kind:
    return None
  base, _ = _parts(inner)
  try:
    value = base(text)
    check(value, kind, text)
  except ValueError as error:
    raise ValueError(f'it must be {say(inner)}') from error
  return value


def type_of(kind: Any) -> type:
  """Returns the type of the values of an annotation that are not None."""
  base, _ = _parts(_without_none(kind))
  return typing.get_origin(base) or base


def say(kind: Any) -> str:
  """Returns words for the values of a kind."""
  base, interval = _parts(kind)
  inner = _without_none(base)
  if inner is not base:
    return f'{say(inner)}, or None'
  limits = str(interval) if isinstance(interval, Range) else ''
  if _is_list(base):
    each, *rest = typing.get_args(base)
    if rest and rest[-1] is not Ellipsis:
      limits = str(1 + len(rest))
    return f'a list{limits and " of "}{limits}, each {say(each)}'
  noun = _NOUNS.get(base, 'a section of keys')
  return f'{noun}, {limits}' if limits else noun


_NOUNS = {
  bool: 'True or False',
  int: 'a whole number',
  float: 'a finite number',
  str: 'text',
}


def _parts(kind: Any) -> tuple[Any, Any]:
  """An annotation without what stands beside it, and that."""
  if typing.get_origin(kind) is not Annotated:
    return kind, None
  return typing.get_args(kind)


def _without_none(kind: Any) -> Any:
  """What an annotation says beside `| None`."""
  if typing.get_origin(kind) not in (typing.Union, types.UnionType):
    return kind
  others = [x for x in typing.get_args(kind) if x is not types.NoneType]
  return others[0] if len(others) == 1 else kind


def _is_list(base: Any) -> bool:
  return typing.get_origin(base) is tuple


def _fits(value: Any, base: Any, interval: Range | None) -> bool:
  inner = _without_none(base)
  if inner is not base:
    return value is None or _fits(value, *_parts(inner))
  if base in (int, float):
    number = isinstance(value, (int, base)) and not isinstance(value, bool)
    return (
      number
      and _is_held(value, base, interval)
      and (interval is None or value in interval)
    )
  if base in (bool, str):
    return isinstance(value, base)
  if _is_list(base):
    rest = typing.get_args(base)[1:]
    long = len(value) if isinstance(value, (tuple, list)) else -1
    if rest[-1:] != (Ellipsis,):
      return long == 1 + len(rest)
    return long >= 0 and (interval is None or long in interval)
  if typing.get_origin(base) is Mapping:
    return isinstance(value, Mapping)
  return True


def _is_held(value: float, base: type, interval: Range | None) -> bool:
  """Whether the numbers that are computed with can hold a value."""
  if base is float:
    return math.isfinite(_single(value))
  ends = interval is not None and interval.high is not None
  return ends or abs(value) <= _MOST_INT


def _single(value: float) -> float:
  """What a value becomes in float32."""
  try:
    (single,) = struct.unpack('f', struct.pack('f', float(value)))
  except OverflowError:
    return math.inf if value > 0 else -math.inf
  return 0.0 if abs(single) < _LEAST_FLOAT else single


def _shown(value: Any) -> str:
  text = shown(value)
  if isinstance(value, int) and abs(value) > _MOST_INT:
    return f'{text} (more than 32 bits)'
  if isinstance(value, float) and math.isfinite(value):
    single = _single(value)
    if single != value and single in (0, 1, math.inf, -math.inf):
      return f'{text} ({single:g} in float32)'
  return text
