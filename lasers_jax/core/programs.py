"""What a compiled program says of itself: collectives, cycles, memory."""

import math
import re
from typing import Any, NamedTuple

COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_BYTES = {'pred': 1, 'bf16': 2, 'c64': 8, 'c128': 16}
_COLLECTIVE = re.compile(
  rf'= (\(.*?\)|\S+) ({"|".join(COLLECTIVES)})(-start)?\('
)
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,]*)\]')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Collective(NamedTuple):
  """An exchange between devices.

  Attributes:
    kind: one of `COLLECTIVES`.
    arrays: type and shape of each array that a device has afterwards.
    origin: the operation that it stems from.
  """

  kind: str
  arrays: list[tuple[str, tuple[int, ...]]]
  origin: str

  @property
  def bytes(self) -> int:
    return sum(_size(*array) for array in self.arrays)


def collectives(hlo: str) -> list[Collective]:
  """Returns the collectives of a compiled program; those of a loop once.

  Args:
    hlo: its text, as `Compiled.as_text` returns it.
  """
  found: dict[Any, Collective] = {}
  scattered = None  # arrays that a fused reduce-scatter of TPUs leaves
  for line in hlo.splitlines():
    if not line.startswith(' '):
      fused = re.match(r'%all-reduce-scatter\S* \(.*\) -> (.*) {', line)
      scattered = _arrays(fused[1]) if fused else None
    match = _COLLECTIVE.search(line)
    if not match:
      continue
    kind, arrays = match[2], _arrays(match[1])
    if scattered:
      kind, arrays = 'reduce-scatter', scattered
    elif match[3] and kind != 'all-reduce':
      arrays = _result(arrays)
    origin = re.search(r'op_name="([^"]*)"', line)
    # What runs beside a computation stands there several times.
    channel = re.search(r'channel_id=(\d+)', line)
    key = (kind, channel[1]) if channel else len(found)
    found.setdefault(key, Collective(kind, arrays, origin[1] if origin else ''))
  return list(found.values())


def _arrays(types: str) -> list[tuple[str, tuple[int, ...]]]:
  """Reads 'f32[8,4]{1,0}' or several of them."""
  return [
    (kind, tuple(int(n) for n in shape.split(',') if n))
    for kind, shape in _ARRAY.findall(types)
  ]


def _result(arrays: list) -> list:
  """Of the operands and results that an asynchronous one gives, the results."""
  arrays = [array for array in arrays if array != ('u32', ())]  # of its own
  half = len(arrays) // 2
  return arrays[half : 2 * half]


def _size(kind: str, shape: tuple[int, ...]) -> int:
  bits = re.search(r'\d+', kind)  # of s4, u8, f8e4m3fn, f32
  size = _BYTES.get(kind) or int(bits[0] if bits else 32) / 8
  return math.ceil(size * math.prod(shape))


def estimated_cycles(hlo: str) -> tuple[int, int] | None:
  """Returns the cycles that the compiler for TPUs expects of a program.

  They are those of the main computation, and those of all others together, as
  of branches that are seldom taken. None where the compiler does not say.
  """
  main = others = 0
  inside = False
  for line in hlo.splitlines():
    if not line.startswith(' ') and line.rstrip().endswith('{'):
      inside = line.startswith('ENTRY')
    match = _CYCLES.search(line)
    if match and inside:
      main += int(match[1])
    elif match:
      others += int(match[1])
  return (main, others) if main else None


class Memory(NamedTuple):
  """Bytes that a program needs on each device.

  Attributes:
    arguments: arrays that it takes; what it changes in place is one of them.
    temporaries: the most that it needs besides while it runs.
    total: all, with its results and the program itself.
  """

  arguments: int
  temporaries: int
  total: int


def memory(compiled: Any) -> Memory:
  """Returns the memory that a compiled program needs."""
  sizes = compiled.memory_analysis()
  arguments, temporaries = (
    sizes.argument_size_in_bytes,
    sizes.temp_size_in_bytes,
  )
  results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  code = sizes.generated_code_size_in_bytes
  return Memory(
    arguments, temporaries, arguments + temporaries + results + code
  )
