"""What a compiled program says of itself: collectives, cycles, memory.

A loop that is known to turn n times counts n times.
"""

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
_NO_CYCLES = 2**63 - 1  # of an operation that the compiler cannot estimate
_LOOPS = ('body', 'condition')
_CALLS = re.compile(
  rf'({"|".join(_LOOPS)}|calls|to_apply|branch_computations|'
  r'true_computation|false_computation)=({[^}]*}|%[\w.\-]+)'
)
_TURNS = re.compile(r'"known_trip_count":{"n":"(\d+)"')


class Collective(NamedTuple):
  """An exchange between devices.

  Attributes:
    kind: one of `COLLECTIVES`.
    arrays: type and shape of each array that a device has afterwards.
    origin: the operation that it stems from.
    times: how often it happens.
  """

  kind: str
  arrays: list[tuple[str, tuple[int, ...]]]
  origin: str
  times: int = 1

  @property
  def bytes(self) -> int:
    """Returns the size of the arrays, once."""
    return sum(_size(*array) for array in self.arrays)


def collectives(hlo: str) -> list[Collective]:
  """Returns the collectives of a compiled program.

  Args:
    hlo: its text, as `Compiled.as_text` returns it.
  """
  found: dict[Any, Collective] = {}
  computations = _computations(hlo)
  runs = _runs(computations)
  for name, (head, *lines) in computations.items():
    # What a fused reduce-scatter of TPUs leaves.
    fused = re.match(r'%all-reduce-scatter\S* \(.*\) -> (.*) {', head)
    times, _ = runs.get(name, (1, False))
    for line in lines:
      one = _collective(line)
      if not one:
        continue
      if fused:
        one = one._replace(kind='reduce-scatter', arrays=_arrays(fused[1]))
      # What runs beside a computation stands there several times.
      channel = re.search(r'channel_id=(\d+)', line)
      key = (one.kind, channel[1]) if channel else len(found)
      known = found.get(key, one)
      found[key] = known._replace(times=max(known.times, times))
  return list(found.values())


def _collective(line: str) -> Collective | None:
  match = _COLLECTIVE.search(line)
  if not match:
    return None
  kind, arrays = match[2], _arrays(match[1])
  if match[3] and kind != 'all-reduce':
    arrays = _result(arrays)
  origin = re.search(r'op_name="([^"]*)"', line)
  return Collective(kind, arrays, origin[1] if origin else '')


def _computations(hlo: str) -> dict[str, list[str]]:
  """Returns the lines of each computation, its head first; 'ENTRY' is main."""
  found: dict[str, list[str]] = {}
  lines: list[str] = []
  for line in hlo.splitlines():
    if not line.startswith(' ') and line.rstrip().endswith('{'):
      lines = found.setdefault(line.split()[0].removeprefix('%'), [])
    lines.append(line)
  return found


def _runs(computations: dict[str, list[str]]) -> dict[str, tuple[int, bool]]:
  """Returns how often computations run, and if they are of the main program.

  Those are its loops, but no branch, and not what runs beside it. The cycles of
  a fusion stand where it is called.
  """
  found: dict[str, tuple[int, bool]] = {}

  def visit(name: str, run: tuple[int, bool]) -> None:
    if name in found and found[name] >= run:
      return
    found[name] = run
    for line in computations.get(name, ()):
      for kind, names in _CALLS.findall(line):
        turns = _turns(line, computations) if kind == 'body' else 1
        inside = turns * run[0], run[1] and kind in _LOOPS
        for called in re.findall(r'%([\w.\-]+)', names):
          visit(called, inside)

  visit('ENTRY', (1, True))
  return found


def _turns(line: str, computations: dict[str, list[str]]) -> int:
  """Returns how often a loop turns; 1 where nobody knows.

  The compiler for TPUs does not say it, but its loops compare a counter that
  starts at 0, as that of every scan, to a constant.
  """
  known = _TURNS.search(line)
  if known:
    return int(known[1])
  condition = re.search(r'condition=%([\w.\-]+)', line)
  text = '\n'.join(computations.get(condition[1], ())) if condition else ''
  root = re.search(r'ROOT .* compare\(\S+, (%[\w.\-]+)\), direction=LT', text)
  last = root and re.search(
    rf'{re.escape(root[1])} = \S+ constant\((\d+)', text
  )
  return int(last[1]) if last else 1


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

  They are those of the main computation with its loops, and those of all others
  together, as of branches that are seldom taken. None where the compiler does
  not say.
  """
  main = others = 0
  computations = _computations(hlo)
  runs = _runs(computations)
  for name, lines in computations.items():
    times, inside = runs.get(name, (1, False))
    found = (int(x) for line in lines for x in _CYCLES.findall(line))
    cycles = times * sum(x for x in found if x != _NO_CYCLES)
    if inside:
      main += cycles
    else:
      others += cycles
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
