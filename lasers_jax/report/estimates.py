"""The table of a dry run, as text: a column for each machine."""

from collections.abc import Sequence
from typing import Any

MIB, GIB = 2**20, 2**30


def table(estimates: Sequence[Any]) -> str:
  """Returns a table of `dry_run.Estimate`s, aligned by spaces."""
  columns = [
    ['', *_ROWS],
    *(
      [one.machine, *(say(one) for say in _ROWS.values())] for one in estimates
    ),
  ]
  lines = [
    line
    for line in zip(*columns, strict=True)
    if any(line[1:])  # what no machine tells is left out
  ]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(width) for cell, width in zip(line, widths, strict=True)
    ).rstrip()
    for line in lines
  )


def failure(estimate: Any) -> str:
  """Returns why a step does not fit, and what to do."""
  why = estimate.too_large or (
    f'{_size(estimate.total_bytes)} of {_size(estimate.memory)} a device'
  )
  return (
    f'the step does not fit on {estimate.machine}: {why}; lower '
    '--config.batch_size, take more devices, or split the state: '
    '--config.mesh.fsdp'
  )


def _devices(one: Any) -> str:
  hosts = f' on {one.hosts} hosts' if one.hosts > 1 else ''
  return f'{one.devices} × {one.device}{hosts}'


def _mesh(one: Any) -> str:
  return ' × '.join(f'{name} {size}' for name, size in one.mesh.items())


def _batch(one: Any) -> str:
  ways = one.mesh['data'] * one.mesh['fsdp']
  return f'{one.batch_size:,} ({one.batch_size // ways:,} a device)'


def _parameters(one: Any) -> str:
  return f'{one.parameters:,} ({_size(one.parameter_bytes)} a device)'


def _total(one: Any) -> str:
  if one.too_large:
    return 'does not fit'
  if one.total_bytes is None:
    return ''
  if one.memory is None:
    return _size(one.total_bytes)
  share = one.total_bytes / one.memory
  wrong = '' if one.fits else ', does not fit'
  return f'{_size(one.total_bytes)} of {_size(one.memory)} ({share:.0%}{wrong})'


def _by_cycles(one: Any) -> str:
  if not one.seconds_by_cycles:
    return ''
  share = one.seconds_at_peak / one.seconds_by_cycles
  return f'{_ms(one.seconds_by_cycles)} ({share:.0%} of the peak)'


def _images(one: Any) -> str:
  if not one.seconds:
    return ''
  bound = '' if one.seconds_by_cycles else 'at most '
  return f'{bound}{one.batch_size / one.seconds:,.0f}'


def _collectives(one: Any) -> str:
  if one.total_bytes is None:
    return ''
  said = [
    f'{found["count"]} {kind} {_size(found["bytes"])}'
    for kind, found in one.collectives.items()
  ]
  return ', '.join(said) or 'none'


def _compiled(one: Any) -> str:
  if one.compile_seconds is None:
    return ''
  return f'{one.compile_seconds:.0f} s, {_size(one.compile_bytes)}'


def _size(count: int | None) -> str:
  if count is None:
    return ''
  unit, name = (GIB, 'GiB') if count >= GIB / 10 else (MIB, 'MiB')
  return f'{count / unit:,.3g} {name}'


def _ms(seconds: float | None) -> str:
  return f'{1e3 * seconds:,.3g} ms' if seconds else ''


def _flops(one: Any) -> str:
  return '' if one.flops is None else f'{one.flops / 1e9:,.4g} GFLOP'


_ROWS = {
  'devices': _devices,
  'mesh': _mesh,
  'batch': _batch,
  'parameters': _parameters,
  'state a device': lambda one: _size(one.state_bytes),
  'arguments': lambda one: _size(one.argument_bytes),
  'temporaries': lambda one: _size(one.temporary_bytes),
  'memory': _total,
  'a device computes': _flops,
  'step at the peak': lambda one: _ms(one.seconds_at_peak),
  'step by cycles': _by_cycles,
  'now and then': lambda one: _ms(one.seconds_of_branches),
  'images a second': _images,
  'collectives': _collectives,
  'compiled in': _compiled,
}
