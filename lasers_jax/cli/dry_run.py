"""What programs that train share: --dry_run compiles a step, and prints it."""

import dataclasses
from collections.abc import Callable

import jax
from absl import flags

from lasers_jax.cli import command_line, program
from lasers_jax.core import machines, storage
from lasers_jax.errors import InputError
from lasers_jax.experiment import dry_run
from lasers_jax.report import estimates


def define_flags() -> None:
  flags.DEFINE_list(
    'dry_run',
    [],
    'Machines to compile the step for, instead of training: v5e:16x16, '
    f'2*v5e:4x4 (slices), h100:8, h100:2x8 (hosts), {machines.HERE}; of '
    f'{", ".join((*machines.TPUS, *machines.GPUS))}.',
  )
  flags.DEFINE(
    command_line.Path(),
    'dry_run_file',
    None,
    'JSON file for what --dry_run finds.',
  )


def estimate(
  build: Callable[[], dry_run.Task], names: list[str], path: str | None
) -> int:
  """Prints what a step needs on some machines, and keeps it.

  Args:
    build: returns what is compiled.
    names: of the machines.
    path: of a JSON file, if wanted.
  """
  if machines.HERE in names:
    program.set_up_jax()
  else:
    jax.config.update('jax_platforms', 'cpu')
  found = dry_run.estimate(build(), names)
  if jax.process_index() == 0:
    print(estimates.table(found))
    if path:
      rows = [dataclasses.asdict(one) for one in found]
      storage.write_text(path, storage.as_json(rows))
  failed = [estimates.failure(one) for one in found if not one.fits]
  if failed:
    raise InputError('; '.join(failed))
  return 0
