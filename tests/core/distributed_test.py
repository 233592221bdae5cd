"""What JAX is given, for each way to start processes."""

import os
import sys
import threading
import types

import jax
import pytest
from jax._src import cloud_tpu_init
from jax._src.clusters import cloud_tpu_cluster

from lasers_jax.core import distributed, rendezvous
from lasers_jax.core.cluster import Place
from lasers_jax.errors import InputError
from tests.core.cluster_test import GKE, HAND, HYDRA, OPEN_MPI, SLICES, SLURM
from tests.core.metadata import VM, metadata_server

LAUNCHERS = 'JAX_', 'SLURM', 'OMPI', 'PMI', 'MPI', 'TPU', 'MEGASCALE', 'CUDA'


@pytest.fixture
def start(monkeypatch):
  """Starts with an environment; gives the place, and what JAX was given."""
  for name in list(os.environ):
    if name.startswith(LAUNCHERS):
      monkeypatch.delenv(name)
  asked = []

  def start(env, tpu=False):
    for name, value in env.items():
      monkeypatch.setenv(name, value)
    for module in cloud_tpu_init, cloud_tpu_cluster:
      monkeypatch.setattr(module, 'running_in_cloud_tpu_vm', tpu)
    monkeypatch.setattr(rendezvous, 'meet', lambda *given: asked.append(given))
    monkeypatch.setattr(
      jax.distributed, 'initialize', lambda *_, **given: asked.append(given)
    )
    place = distributed.initialize_distributed()
    if place is None:
      assert not asked
      return None
    (met, seconds), given = asked
    assert met == place
    assert given.pop('cluster_detection_method') == 'deactivate'
    return place, given['local_device_ids'], seconds

  return start


def test_one_alone_joins_nobody(start):
  assert start({}) is None


def test_by_hand(start):
  assert start(HAND) == (Place('node1:1234', 2, 1), None, 120)


def test_pods_have_longer_to_come(start):
  env = {**HAND, 'KUBERNETES_SERVICE_HOST': '10.0.0.1'}
  assert start(env)[2] == 600


# A node with one task uses all of its GPUs, also where JAX would take the one
# of SLURM_LOCALID.
@pytest.mark.parametrize(
  ('per_node', 'gpus'), [('1(x4)', None), ('8(x4)', [0]), ('2(x4)', [0, 1])]
)
def test_slurm(start, per_node, gpus):
  env = {
    **SLURM,
    'SLURM_STEP_TASKS_PER_NODE': per_node,
    'CUDA_VISIBLE_DEVICES': '0,1,2,3' if gpus == [0, 1] else '0,1,2,3,4,5,6,7',
  }
  # 61,440 and the last twelve bits of the number of the job.
  assert start(env) == (Place('node1:61563', 4, 3), gpus, 120)


def test_the_port_may_be_given_to_any_launcher(start):
  given = {'JAX_COORDINATOR_PORT': '77'}
  assert start({**SLURM, **given})[0].address == 'node1:77'


def test_the_address_may_be_given_to_any_launcher(start):
  given = {'JAX_COORDINATOR_ADDRESS': 'node9:78'}
  assert start({**OPEN_MPI, **given})[0] == Place('node9:78', 4, 1)


def test_open_mpi(start):
  env = {
    **OPEN_MPI,
    'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
    'CUDA_VISIBLE_DEVICES': '0,1,2,3',
  }
  assert start(env) == (Place('10.0.0.1:61440', 4, 1), [2, 3], 120)


class World:
  """What JAX asks of mpi4py."""

  Get_rank, Get_size = lambda _: 3, lambda _: 4

  def bcast(self, said, root):
    assert (said, root) == ('None', 0)
    return 'node1:65000'


def test_other_mpis_by_mpi4py(start, monkeypatch):
  mpi = types.SimpleNamespace(COMM_WORLD=World())
  module = types.ModuleType('mpi4py')
  module.MPI, module.__spec__ = mpi, types.SimpleNamespace()
  monkeypatch.setitem(sys.modules, 'mpi4py', module)
  env = {**HYDRA, 'CUDA_VISIBLE_DEVICES': '0,1'}
  assert start(env) == (Place('node1:65000', 4, 3), [1], 120)


def test_other_mpis_need_mpi4py(start, monkeypatch):
  monkeypatch.setitem(sys.modules, 'mpi4py', None)
  with pytest.raises(InputError, match='install mpi4py, or set JAX_NUM_PROC'):
    start(HYDRA)


def test_a_pod_of_tpu_vms(start):
  with metadata_server(**VM) as server:
    found = start({'GCE_METADATA_IP': server}, tpu=True)
  assert found == (Place('10.0.0.5:8482', 2, 1), None, 600)


def test_several_slices_of_tpu_vms(start):
  said = (
    "MEGASCALE_NUM_SLICES: '3'\nMEGASCALE_SLICE_ID: '2'\n"
    "MEGASCALE_COORDINATOR_ADDRESS: '127.0.0.1:1'\n"
  )
  with metadata_server(**{**VM, 'tpu_env': said}) as server:
    found = start({'GCE_METADATA_IP': server}, tpu=True)
  assert found == (Place('127.0.0.1:8482', 6, 5), None, 600)


def test_one_tpu_vm_joins_nobody(start):
  one = dict(agent_worker_number='0', worker_network_endpoints='a:1:10.0.0.5')
  with metadata_server(**{**VM, **one}) as server:
    assert start({'GCE_METADATA_IP': server}, tpu=True) is None


def test_a_metadata_server_that_knows_no_tpu(start, monkeypatch):
  monkeypatch.setattr('time.sleep', lambda _: None)  # it is asked six times
  with metadata_server() as server:
    assert start({'GCE_METADATA_IP': server}, tpu=True) is None


def test_no_metadata_server_is_one_line(start):
  with metadata_server() as server:
    pass
  with pytest.raises(InputError) as error:
    start({'GCE_METADATA_IP': server}, tpu=True)
  said = str(error.value)
  assert said.startswith('the processes of the run cannot meet: ')
  assert said.endswith('or JAX_NUM_PROCESSES=1 for one')


def test_what_jax_cannot_read_is_one_line(start, monkeypatch):
  assert start(HAND)
  monkeypatch.undo()
  monkeypatch.setattr(rendezvous, 'meet', lambda *_: None)
  for name, value in {**HAND, 'JAX_LOCAL_DEVICE_IDS': '0,b'}.items():
    monkeypatch.setenv(name, value)
  # Before it reads them, JAX would ask that nothing was computed.
  monkeypatch.setattr('jax._src.xla_bridge.backends_are_initialized', bool)
  with pytest.raises(InputError, match="cannot meet: invalid literal .*'b'"):
    distributed.initialize_distributed()


def test_slices_of_gke(start):
  coordinator = {'MEGASCALE_COORDINATOR_ADDRESS': 'localhost'}
  found = start({**GKE, **SLICES, **coordinator}, tpu=True)
  assert found == (Place('localhost:8482', 4, 3), None, 600)


def test_a_slice_of_gke(start):
  with metadata_server(tpu_env='') as server:
    env = {**GKE, 'GCE_METADATA_IP': server}
    found = start({**env, 'TPU_WORKER_HOSTNAMES': 'localhost,b'}, tpu=True)
  assert found == (Place('localhost:8482', 2, 1), None, 600)


def test_a_wait_for_jax_is_said(monkeypatch):
  monkeypatch.setattr(rendezvous, 'SILENCE', 0.01)
  done = threading.Event()
  monkeypatch.setattr('logging.info', lambda *_: done.set())
  with distributed._slowly('for it'):
    assert done.wait(10)
  monkeypatch.setattr(rendezvous, 'SILENCE', 60)
  with distributed._slowly('for it'):
    (timer,) = [x for x in threading.enumerate() if type(x) is threading.Timer]
  timer.join(timeout=5)
  assert not timer.is_alive()


def test_one_line_a_process(log):
  distributed.log_process(Place('node1:1', 4, 3))
  assert log == ['process 3 of 4: 8 of 8 devices (cpu), process 0 at node1:1']
