"""Joining the processes of a run, as the environment names them."""

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from lasers_jax.errors import InputError

# What names the processes: by hand, or what srun, mpirun or a TPU slice of
# several hosts sets, and JAX reads.
_BY_HAND = 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID', 'JAX_COORDINATOR_ADDRESS'
_SLURM = (
  'SLURM_NTASKS',
  'SLURM_PROCID',
  'SLURM_LOCALID',
  'SLURM_JOB_ID',
  'SLURM_STEP_NODELIST',
)
_OPEN_MPI = (
  'OMPI_COMM_WORLD_SIZE',
  'OMPI_COMM_WORLD_RANK',
  'OMPI_COMM_WORLD_LOCAL_RANK',
  'OMPI_MCA_orte_hnp_uri',
)
_TPU = 'TPU_WORKER_HOSTNAMES', 'TPU_WORKER_ID'

# Seconds that a process waits for the others. A scheduler has started them; by
# hand, one may be forgotten.
_WAIT_BY_HAND, _WAIT_FOR_SCHEDULER = 60, 300
_SILENCE = 10  # seconds until it says so


def initialize_distributed() -> None:
  """Joins the other processes of a run, where the environment names them.

  That is: `JAX_COORDINATOR_ADDRESS` with `JAX_NUM_PROCESSES` and
  `JAX_PROCESS_ID`, a Slurm or Open MPI job of several tasks, or a TPU slice of
  several hosts. Must come before anything else that JAX does. Ends the process
  with one line and code 2 if the others do not come.

  Raises:
    InputError: the variables are not complete, or cannot be used.
  """
  env = {name: value for name, value in os.environ.items() if value.strip()}
  if 'JAX_NUM_PROCESSES' in env or 'JAX_PROCESS_ID' in env:
    given = _by_hand(env)
    if given['num_processes'] > 1:
      if given['process_id'] == 0:
        _check_free(given['coordinator_address'])
      _join(_WAIT_BY_HAND, **given)
  elif (
    _is_slurm(env)
    or _is_open_mpi(env)
    or _is_tpu(env)
    or 'JAX_COORDINATOR_ADDRESS' in env  # JAX may know the rest.
  ):
    _join(_WAIT_FOR_SCHEDULER)


def _by_hand(env: Mapping[str, str]) -> dict[str, Any]:
  """What is given to JAX; of one process, the number alone."""
  if _number(env, 'JAX_NUM_PROCESSES') == 1 and 'JAX_PROCESS_ID' not in env:
    return {'num_processes': 1}
  count, index = _check_index(env, 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
  if count == 1:
    return {'num_processes': 1}
  _check_whole(env, _BY_HAND)
  address = env['JAX_COORDINATOR_ADDRESS'].strip()
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise InputError(
      f'JAX_COORDINATOR_ADDRESS={address} must be HOST:PORT, of process 0'
    )
  return {
    'coordinator_address': address,
    'num_processes': count,
    'process_id': index,
  }


def _is_slurm(env: Mapping[str, str]) -> bool:
  """Whether srun started this task, and others."""
  step = 'SLURM_STEP_NODELIST' in env and 'SLURM_PROCID' in env
  if not step:
    if env.get('SLURM_NTASKS', '1') != '1':
      logging.info(
        'not started by srun: one process, whatever SLURM_NTASKS=%s says',
        env['SLURM_NTASKS'],
      )
    return False
  # A shell in an allocation is a step of one task, and sees those of the job.
  tasks = {'SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS'} & env.keys()
  if not tasks or min(_number(env, name) for name in tasks) == 1:
    return False
  _check_whole(env, _SLURM)
  _number(env, 'SLURM_JOB_ID')
  _number(env, 'SLURM_LOCALID')
  _check_index(env, 'SLURM_NTASKS', 'SLURM_PROCID')
  return True


def _is_open_mpi(env: Mapping[str, str]) -> bool:
  """Whether mpirun started this process, and others."""
  size = 'OMPI_COMM_WORLD_SIZE'
  if size not in env or _number(env, size) == 1:
    return False
  _check_whole(env, _OPEN_MPI)
  _number(env, 'OMPI_COMM_WORLD_LOCAL_RANK')
  _check_index(env, size, 'OMPI_COMM_WORLD_RANK')
  return True


def _is_tpu(env: Mapping[str, str]) -> bool:
  """Whether this host is one of several of a TPU slice."""
  hosts = env.get('TPU_WORKER_HOSTNAMES', '').split(',')
  if len(hosts) == 1:
    return False
  _check_whole(env, _TPU)
  if _number(env, 'TPU_WORKER_ID') >= len(hosts):
    raise InputError(
      f'TPU_WORKER_ID={env["TPU_WORKER_ID"]} must be below the number of '
      f'TPU_WORKER_HOSTNAMES, {len(hosts)}'
    )
  return True


def _number(env: Mapping[str, str], name: str) -> int:
  """Reads a whole number of at least 0."""
  if name not in env:
    raise InputError(f'{name} is not set: {_advice([name])}')
  if not env[name].strip().isdecimal():
    raise InputError(f'{name}={env[name]} must be a whole number')
  return int(env[name])


def _check_index(
  env: Mapping[str, str], count: str, index: str
) -> tuple[int, int]:
  """Reads the number of processes, and which of them this one is."""
  n, i = _number(env, count), _number(env, index)
  if not i < n:
    raise InputError(f'{index}={i} must be below {count}={n}')
  return n, i


def _check_whole(env: Mapping[str, str], names: tuple[str, ...]) -> None:
  """Raises InputError unless all are set."""
  missing = [name for name in names if name not in env]
  if missing:
    raise InputError(
      f'{names[0]}={env[names[0]]}, but {" and ".join(missing)} '
      f'{"is" if len(missing) == 1 else "are"} not set: {_advice(names)}'
    )


def _advice(names) -> str:
  several = ', '.join(_BY_HAND)
  alone = 'unset it' if len(names) == 1 else f'unset {names[0]}'
  return f'set {several} for a run of several processes, or {alone} for one'


def _check_free(address: str) -> None:
  """Raises InputError where process 0 cannot listen at its address.

  JAX would end in C++.
  """
  port = int(address.rpartition(':')[2])
  both = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both else socket.AF_INET
  try:
    socket.create_server(('', port), family=family, dualstack_ipv6=both).close()
  except OSError as error:
    raise InputError(
      f'process 0 cannot listen at {address}: {error.strerror}; choose another '
      'port in JAX_COORDINATOR_ADDRESS'
    ) from error


def _join(seconds: int, **given: Any) -> None:
  """Waits for the other processes."""
  address = given.get('coordinator_address', '')
  with _waiting(seconds, address):
    try:
      # JAX aborts where its own time is over: ours is over before.
      jax.distributed.initialize(**given, initialization_timeout=2 * seconds)
    except Exception as error:  # Whatever it cannot find or read.
      raise InputError(
        f'the processes of the run cannot meet: {error} {_advice(_BY_HAND)}'
      ) from error


@contextlib.contextmanager
def _waiting(seconds: int, address: str) -> Iterator[None]:
  """Says that the block waits for others; ends the process after a time."""
  where = f' at {address}' if address else ''

  def say() -> None:
    logging.info('waiting for the other processes%s', where)

  def end() -> None:
    who = 'not all others are there' if _answers(address) else 'no answer'
    print(
      f'error: waited {seconds} s for the other processes{where}: {who}; start '
      'all of them at once, with the address of process 0',
      file=sys.stderr,
      flush=True,
    )
    os._exit(2)  # JAX waits in C++, where no exception reaches it.

  timers = threading.Timer(_SILENCE, say), threading.Timer(seconds, end)
  for timer in timers:
    timer.daemon = True
    timer.start()
  try:
    yield
  finally:
    for timer in timers:
      timer.cancel()


def _answers(address: str) -> bool:
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host, int(port)), timeout=5).close()
  except (OSError, ValueError):
    return False
  return True
