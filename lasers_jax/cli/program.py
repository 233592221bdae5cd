"""Runs a program: the shared flag, log lines, one-line errors, exit codes."""

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging

from lasers_jax.cli import command_line
from lasers_jax.core import signals
from lasers_jax.core.distributed import initialize_distributed, log_process
from lasers_jax.core.memory import keep_freed_memory
from lasers_jax.core.storage import CACHE
from lasers_jax.errors import InputError, TrainingError

STOPPED = os.EX_TEMPFAIL  # 75: asked to stop; the same command goes on
OUT_OF_MEMORY = (
  'out of memory: lower the number of images at a time (training: '
  '--config.batch_size, or split the state over devices: --config.mesh.fsdp; '
  'measuring: --config.evaluation.batch_size or --batch_size)'
)

# Here, since absl lets only one module define a flag.
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run: config, checkpoints, results.'
)


def run(
  main: Callable[..., int | None], words: bool = False, resumes: bool = False
) -> None:
  """Parses the flags and runs the main function of a program.

  Exit codes: 0, or the value that `main` returns; 2 for a user error, which one
  line on stderr explains; 1 for a run that failed; STOPPED for a run that was
  asked to stop and resumes. A program that does not resume ends by the signal.

  Args:
    main: the function; with `words` it takes the list of words.
    words: whether words that are no flags are allowed.
    resumes: whether the same command goes on where it was stopped.
  """

  def parse(argv: list[str]) -> list[str]:
    try:
      return command_line.parse(argv, words, main.__module__)
    except InputError as error:
      sys.exit(_fail(error, 2))

  def guarded(argv: list[str]) -> int:
    _survive_any_locale()
    set_up_logging()
    return _outcome(lambda: main(argv[1:]) if words else main())

  def end(number: int, rescue: Callable[[], None] | None) -> NoReturn:
    code = 0
    if rescue:
      code = _outcome(rescue)
    elif resumes:
      logging.info('asked to stop: nothing is left to save')
    else:
      print(f'ended by {signal.Signals(number).name}', file=sys.stderr)
    _flush()
    if not resumes:
      signals.die(number)
    # Whatever other threads are doing: nothing waits for them.
    os._exit(code or STOPPED)

  with signals.Listener(end) as listener:
    try:
      app.run(guarded, flags_parser=parse)
    except signals.Asked as asked:
      listener.end(asked.number)
    except SystemExit as left:
      # One of several that stop together has yet to take leave of the others.
      if left.code not in (None, 0, STOPPED) and _others_work():
        _flush()
        os._exit(left.code)
      raise


def _others_work() -> bool:
  """Returns whether threads are left that Python would wait for.

  Those of a write that failed wait for each other for minutes.
  """
  return any(
    thread is not threading.main_thread() and not thread.daemon
    for thread in threading.enumerate()
  )


def _flush() -> None:
  with contextlib.suppress(OSError):  # of a terminal that is gone
    sys.stdout.flush()
    sys.stderr.flush()


def _outcome(act: Callable[[], int | None]) -> int:
  """Calls a function, returns the exit code, prints an error on one line."""
  try:
    return act() or 0
  except InputError as error:
    return _fail(error, 2)
  except TrainingError as error:
    return _fail(error, 1)
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
      return _fail(OUT_OF_MEMORY, 1)
    raise
  except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not (error.strerror and (full or error.filename)):
      raise
    return _fail(f'{error.strerror}: {error.filename or "make room"}', 2)


def _survive_any_locale() -> None:
  """Escapes letters that a terminal cannot show, which would end a run."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


def set_up_logging() -> None:
  """Makes log lines plain, and hides those of libraries except errors."""
  logging.basicConfig(
    level=logging.INFO, format='%(message)s', stream=sys.stderr, force=True
  )
  logging.getLogger('jax').setLevel(logging.WARNING)
  # A failed write is raised; absl would log it again, at great length.
  absl_logging.set_verbosity(absl_logging.FATAL)
  for name in ('asyncio', 'concurrent.futures'):
    logging.getLogger(name).setLevel(logging.CRITICAL)


def set_up_jax(saves: bool = False) -> None:
  """Joins the other processes, and keeps compiled programs between runs.

  Args:
    saves: whether SIGTERM makes all processes save at the same step; otherwise
      it ends each of them.

  Raises:
    InputError: the processes do not meet, or there is no such device.
  """
  keep_freed_memory()
  jax.config.update('jax_enable_preemption_service', saves)
  place = initialize_distributed()
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # one without words: cuda
    asked = jax.config.jax_platforms or 'not set'
    raise InputError(
      f'JAX finds no device (JAX_PLATFORMS: {asked}): '
      f'{str(error) or "its plugin is not installed"}; JAX_PLATFORMS=cpu does '
      'without'
    ) from error
  if place:
    log_process(place)
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(CACHE))


def _fail(error: Exception | str, code: int) -> int:
  line = ' '.join(str(error).split()) or type(error).__name__
  print(f'error: {line}', file=sys.stderr, flush=True)
  return code
