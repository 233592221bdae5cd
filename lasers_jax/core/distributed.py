"""Joins the processes of a run, as the environment names them."""

import contextlib
import glob
import importlib.util
import logging
import os
import threading
from collections.abc import Iterator

import jax
from jax._src import cloud_tpu_init, clusters

from lasers_jax.core import cluster, rendezvous
from lasers_jax.core.cluster import Launch, Machine, Place
from lasers_jax.errors import InputError

# Seconds that processes wait for each other: where one command starts all of
# them, and where each host first installs or loads something.
_WAIT, _WAIT_FOR_HOSTS = 120, 600


def initialize_distributed() -> Place | None:
  """Joins the other processes of a run, where the environment names them.

  That is: `JAX_COORDINATOR_ADDRESS` with `JAX_NUM_PROCESSES` and
  `JAX_PROCESS_ID`, tasks of srun or mpirun, or hosts of a Cloud TPU. Of several
  tasks on a machine, each takes its share of the GPUs. Must come before
  anything else that JAX does.

  Returns:
    Which of the processes this is; None for one alone.

  Raises:
    InputError: the variables are not complete, or cannot be used, or the
      others do not come.
  """
  machine = Machine(
    tpu=cloud_tpu_init.running_in_cloud_tpu_vm,
    gpus=len(glob.glob('/dev/nvidia[0-9]*')),
  )
  launch = cluster.find_launch(os.environ, machine)
  if launch is None:
    return None
  hosts = 'Tpu' in launch.name or 'KUBERNETES_SERVICE_HOST' in os.environ
  seconds = _WAIT_FOR_HOSTS if hosts else _WAIT
  place = launch.place or _ask_jax(launch, seconds)
  if place.count == 1:
    return None
  rendezvous.meet(place, seconds)
  with _in_one_line():
    jax.distributed.initialize(
      *place,
      local_device_ids=launch.gpus,
      cluster_detection_method='deactivate',
    )
  return place


def log_process(place: Place) -> None:
  """Logs which process this is, of how many, and the devices."""
  kinds = ', '.join(sorted({x.device_kind for x in jax.devices()}))
  logging.info(
    'process %d of %d: %d of %d devices (%s), process 0 at %s',
    place.index,
    place.count,
    jax.local_device_count(),
    jax.device_count(),
    kinds,
    place.address,
  )


def _ask_jax(launch: Launch, seconds: float) -> Place:
  """Lets JAX find out which of the processes this one is.

  Its class for the launcher is asked, and not `jax.distributed.initialize`:
  that would join a host of a TPU that is alone, and hide GPUs of a node that
  has one task.
  """
  if launch.name == 'Mpi4pyCluster' and not importlib.util.find_spec('mpi4py'):
    raise InputError(
      'this mpirun does not say where process 0 is: install mpi4py, or '
      f'{cluster.ADVICE}'
    )
  with (
    _in_one_line(),
    _slowly(f'for {launch.name} of JAX to name the processes'),
  ):
    found = getattr(clusters, launch.name)
    if not found.is_env_present():
      return Place('', 1, 0)  # a TPU that no metadata server knows
    address = os.environ.get(
      'JAX_COORDINATOR_ADDRESS'
    ) or found.get_coordinator_address(
      timeout_secs=seconds,
      override_coordinator_port=os.environ.get('JAX_COORDINATOR_PORT'),
    )
    return Place(address, found.get_process_count(), found.get_process_id())


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
  """Turns what JAX cannot find or read into an InputError."""
  try:
    yield
  except Exception as error:
    raise InputError(
      f'the processes of the run cannot meet: {error}; {cluster.ADVICE}'
    ) from error


@contextlib.contextmanager
def _slowly(what: str) -> Iterator[None]:
  """Says what a block waits for, where it takes seconds."""
  timer = threading.Timer(
    rendezvous.SILENCE, logging.info, ['waiting %s', what]
  )
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
