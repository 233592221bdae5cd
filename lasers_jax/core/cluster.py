"""Who the processes of a run are, and whose the GPUs of a machine.

Read from the variables of launchers. What JAX finds out by itself (the address
of a Slurm or Open MPI job, the hosts of a TPU slice) is left to JAX.
"""

import itertools
import logging
import re
from collections.abc import Mapping
from typing import NamedTuple

from lasers_jax.errors import InputError

BY_HAND = 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID', 'JAX_COORDINATOR_ADDRESS'
ADVICE = (
  f'set {", ".join(BY_HAND)} for a run of several processes, or '
  'JAX_NUM_PROCESSES=1 for one'
)
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
)
# MPICH and Intel MPI. Slurm sets the first two as well, but not the others.
_HYDRA = 'PMI_SIZE', 'PMI_RANK', 'MPI_LOCALRANKID', 'MPI_LOCALNRANKS'
_SLICES = (
  'MEGASCALE_NUM_SLICES',
  'MEGASCALE_SLICE_ID',
  'MEGASCALE_COORDINATOR_ADDRESS',
)
_TPU_HOSTS = 'TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES'


class Place(NamedTuple):
  """One process among those of a run."""

  address: str  # HOST:PORT of process 0
  count: int
  index: int


class Launch(NamedTuple):
  """How the processes of a run were started.

  Attributes:
    name: 'by hand', or the class of `jax._src.clusters` that knows the rest.
    gpus: which of the GPUs that this process sees are its own; None: all.
    place: of this process, where it was given by hand.
  """

  name: str
  gpus: list[int] | None = None
  place: Place | None = None


class Machine(NamedTuple):
  """What was found on this machine.

  Attributes:
    tpu: whether JAX found TPU chips and the library for them.
    gpus: the number of NVIDIA's device files.
  """

  tpu: bool = False
  gpus: int = 0


def find_launch(
  environment: Mapping[str, str], machine: Machine
) -> Launch | None:
  """Returns how the environment says that the processes were started.

  Variables set by hand win. Then comes mpirun, since it may start its tasks by
  srun; then srun; then the host of a TPU slice.

  Returns:
    None for a process alone. A host of a Cloud TPU may turn out to be alone.

  Raises:
    InputError: the variables of a launcher are not complete, or contradict.
  """
  env = {name: x.strip() for name, x in environment.items() if x.strip()}
  if 'JAX_NUM_PROCESSES' in env or 'JAX_PROCESS_ID' in env:
    return _by_hand(env)
  gpus = visible_gpus(environment, machine.gpus)
  for launcher in _open_mpi, _hydra, _slurm:
    if launch := launcher(env, gpus):
      return launch
  if launch := _tpu(env, machine):
    return launch
  if 'JAX_COORDINATOR_ADDRESS' in env:
    _check_whole(env, BY_HAND[::-1])
  return None


def visible_gpus(env: Mapping[str, str], files: int) -> int:
  """Returns the number of GPUs that a process sees.

  Args:
    env: the environment. An empty CUDA_VISIBLE_DEVICES hides all.
    files: the number of device files, which counts where no variable does.
  """
  platforms = env.get('JAX_PLATFORMS', '').lower()
  if platforms and not re.search('cuda|gpu|rocm', platforms):
    return 0
  for name in 'CUDA_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES':
    if name in env:
      # Those behind one that is not valid are hidden, too.
      valid = re.compile(r'\d+|(GPU|MIG)-.+').fullmatch
      listed = [x.strip() for x in env[name].split(',')]
      seen = list(itertools.takewhile(valid, listed))
      # CUDA shows a process one part of a divided GPU, however many are named.
      return 1 if seen and seen[0].startswith('MIG-') else len(seen)
  return files


def _by_hand(env: Mapping[str, str]) -> Launch | None:
  if _number(env, 'JAX_NUM_PROCESSES') == 1 and 'JAX_PROCESS_ID' not in env:
    return None
  count, index = _check_index(env, 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
  if count == 1:
    return None
  _check_whole(env, BY_HAND)
  address = env['JAX_COORDINATOR_ADDRESS']
  return Launch('by hand', None, Place(address, count, index))


def _open_mpi(env: Mapping[str, str], gpus: int) -> Launch | None:
  size, rank, local = _OPEN_MPI
  if size not in env or _number(env, size) == 1:
    return None
  _check_whole(env, _OPEN_MPI)
  _check_index(env, size, rank)
  # Open MPI 5 no longer says where process 0 is; its own library does.
  old = 'OMPI_MCA_orte_hnp_uri' in env
  own = _own_gpus(
    env, gpus, local, _optional(env, 'OMPI_COMM_WORLD_LOCAL_SIZE')
  )
  return Launch('OmpiCluster' if old else 'Mpi4pyCluster', own)


def _hydra(env: Mapping[str, str], gpus: int) -> Launch | None:
  size, rank, local, here = _HYDRA
  if here not in env or size not in env or _number(env, size) == 1:
    return None
  _check_whole(env, _HYDRA)
  _check_index(env, size, rank)
  own = _own_gpus(env, gpus, local, _number(env, here))
  return Launch('Mpi4pyCluster', own)


def _slurm(env: Mapping[str, str], gpus: int) -> Launch | None:
  step = 'SLURM_STEP_NODELIST' in env and 'SLURM_PROCID' in env
  if not step:
    if env.get('SLURM_NTASKS', '1') != '1':
      logging.info(
        'not started by srun: one process, whatever SLURM_NTASKS=%s says',
        env['SLURM_NTASKS'],
      )
    return None
  # A shell in an allocation is a step of one task, and sees those of the job.
  tasks = {'SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS'} & env.keys()
  if not tasks or min(_number(env, name) for name in tasks) == 1:
    return None
  _check_whole(env, _SLURM)
  _number(env, 'SLURM_JOB_ID')
  _check_index(env, 'SLURM_NTASKS', 'SLURM_PROCID')
  if _is_bound(env, gpus):
    return Launch('SlurmCluster')
  here = _slurm_tasks_here(env)
  return Launch('SlurmCluster', _own_gpus(env, gpus, 'SLURM_LOCALID', here))


def _is_bound(env: Mapping[str, str], gpus: int) -> bool:
  """Returns whether Slurm hides from a task the GPUs of the others.

  It does so by --gpus-per-task and --gpu-bind.
  """
  per_task = re.search(r'\d+$', env.get('SLURM_GPUS_PER_TASK', ''))
  of_step = env.get('SLURM_STEP_GPUS', '')
  return bool(
    (per_task and gpus <= int(per_task[0]))
    or (of_step and gpus < len(of_step.split(',')))
  )


def _slurm_tasks_here(env: Mapping[str, str]) -> int | None:
  """Returns the tasks on this node; None where Slurm does not say."""
  for name in 'SLURM_STEP_TASKS_PER_NODE', 'SLURM_NTASKS_PER_NODE':
    if name in env:
      counts = _expand(name, env[name])
      node = _number(env, 'SLURM_NODEID') if 'SLURM_NODEID' in env else 0
      if len(set(counts)) == 1:
        return counts[0]
      return counts[node] if node < len(counts) else None
  return None


def _expand(name: str, listed: str) -> list[int]:
  """Reads Slurm's '2(x3),1' as 2, 2, 2, 1."""
  found = [re.fullmatch(r'(\d+)(\(x(\d+)\))?', x) for x in listed.split(',')]
  if not all(found):
    raise InputError(f'{name}={listed} must be numbers of tasks, as 2(x3),1')
  return [int(x[1]) for x in found if x for _ in range(int(x[3] or 1))]


def _own_gpus(
  env: Mapping[str, str], gpus: int, local: str, tasks: int | None
) -> list[int] | None:
  """Returns the GPUs of a task; None for all that it sees.

  Args:
    env: the environment; JAX itself reads JAX_LOCAL_DEVICE_IDS.
    gpus: how many it sees.
    local: the variable with its index among the tasks on this machine.
    tasks: their number; None where nobody says, and then each has one GPU.
  """
  index = _number(env, local)
  if 'JAX_LOCAL_DEVICE_IDS' in env or gpus <= 1 or tasks == 1:
    return None
  if tasks is None or index >= tasks:
    return [index]
  if gpus % tasks:
    raise InputError(
      f'{tasks} tasks on this machine cannot share its {gpus} GPUs evenly: '
      'start one task a machine, or one a GPU'
    )
  each = gpus // tasks
  return list(range(index * each, (index + 1) * each))


def _tpu(env: Mapping[str, str], machine: Machine) -> Launch | None:
  named = next((name for name in _TPU_HOSTS if name in env), None)
  if not named:
    # A VM of Google Cloud asks its metadata server; JAX sets the variable
    # where there is no chip.
    asks = machine.tpu and 'TPU_SKIP_MDS_QUERY' not in env
    return Launch('GceTpuCluster') if asks else None
  hosts = len(env[named].split(','))
  slices = 1
  if any(name in env for name in _SLICES):
    _check_whole(env, _SLICES)
    slices, _ = _check_index(env, *_SLICES[:2])
  if hosts * slices == 1:
    return None
  _check_whole(env, (named, 'TPU_WORKER_ID'))
  if _number(env, 'TPU_WORKER_ID') >= hosts:
    raise InputError(
      f'TPU_WORKER_ID={env["TPU_WORKER_ID"]} must be below the number of '
      f'{named}, {hosts}'
    )
  if not machine.tpu:
    raise InputError(
      f'{named} names {hosts * slices} hosts, but JAX finds no TPU here: '
      f"install 'lasers_jax[tpu]', or {ADVICE}"
    )
  return Launch('GkeTpuCluster')


def _number(env: Mapping[str, str], name: str) -> int:
  """Reads a whole number of at least 0."""
  if name not in env:
    raise InputError(f'{name} is not set: {ADVICE}')
  if not env[name].isdecimal():
    raise InputError(f'{name}={env[name]} must be a whole number')
  return int(env[name])


def _optional(env: Mapping[str, str], name: str) -> int | None:
  return _number(env, name) if name in env else None


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
    first = next(name for name in names if name in env)
    raise InputError(
      f'{first}={env[first]}, but {" and ".join(missing)} '
      f'{"is" if len(missing) == 1 else "are"} not set: {ADVICE}'
    )
