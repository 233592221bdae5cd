"""Which processes the environment names, whose the GPUs are, what is amiss."""

import pytest

from lasers_jax.core import cluster
from lasers_jax.core.cluster import Launch, Machine, Place
from lasers_jax.errors import InputError

HAND = dict(
  JAX_NUM_PROCESSES='2',
  JAX_PROCESS_ID='1',
  JAX_COORDINATOR_ADDRESS='node1:1234',
)
SLURM = dict(
  SLURM_JOB_ID='123',
  SLURM_NTASKS='4',
  SLURM_PROCID='3',
  SLURM_LOCALID='0',
  SLURM_STEP_NODELIST='node[1-4]',
)
OPEN_MPI = dict(
  OMPI_COMM_WORLD_SIZE='4',
  OMPI_COMM_WORLD_RANK='1',
  OMPI_COMM_WORLD_LOCAL_RANK='1',
  OMPI_MCA_orte_hnp_uri='1.0;tcp://10.0.0.1:1',
)
HYDRA = dict(
  PMI_SIZE='4', PMI_RANK='3', MPI_LOCALRANKID='1', MPI_LOCALNRANKS='2'
)
GKE = dict(TPU_WORKER_HOSTNAMES='a,b', TPU_WORKER_ID='1')
SLICES = dict(
  MEGASCALE_NUM_SLICES='2',
  MEGASCALE_SLICE_ID='1',
  MEGASCALE_COORDINATOR_ADDRESS='slice-0',
)
ONE_HOST = dict(TPU_WORKER_HOSTNAMES='localhost', TPU_WORKER_ID='0')
EIGHT = ','.join('01234567')


def find(env, tpu=True, gpus=0):
  return cluster.find_launch(env, Machine(tpu, gpus))


def test_what_is_given_by_hand_is_taken():
  place = Place('node1:1234', 2, 1)
  for env in HAND, {**SLURM, **HAND}, {**OPEN_MPI, **GKE, **HAND}:
    assert find(env) == Launch('by hand', None, place)


def test_each_launcher_is_known():
  """Also where one starts the tasks of the other."""
  old = OPEN_MPI.copy()
  open_mpi_5 = without(OPEN_MPI, 'OMPI_MCA_orte_hnp_uri')
  for env, name in [
    (SLURM, 'SlurmCluster'),
    (old, 'OmpiCluster'),
    ({**SLURM, **old}, 'OmpiCluster'),
    (open_mpi_5, 'Mpi4pyCluster'),
    (HYDRA, 'Mpi4pyCluster'),
    ({**SLURM, **HYDRA}, 'Mpi4pyCluster'),
    ({**SLURM, 'PMI_SIZE': '4', 'PMI_RANK': '3'}, 'SlurmCluster'),
    (GKE, 'GkeTpuCluster'),
    ({'TPU_PROCESS_ADDRESSES': 'a:1,b:1', **GKE}, 'GkeTpuCluster'),
    ({**GKE, **SLICES}, 'GkeTpuCluster'),
    ({**ONE_HOST, **SLICES}, 'GkeTpuCluster'),
    ({}, 'GceTpuCluster'),
    ({'SLURM_NTASKS': '4', 'SLURM_JOB_ID': '123'}, 'GceTpuCluster'),
  ]:
    found = find(env)
    assert found, env
    assert (found.name, found.place) == (name, None), env


ALONE = {
  'nothing': {},
  'one by hand': dict(JAX_NUM_PROCESSES='1'),
  'the first of one': dict(JAX_NUM_PROCESSES='1', JAX_PROCESS_ID='0'),
  'one by hand among tasks': {**SLURM, 'JAX_NUM_PROCESSES': '1'},
  'ssh or salloc': dict(SLURM_NTASKS='4', SLURM_JOB_ID='123'),
  'sbatch without srun': {
    **SLURM,
    'SLURM_PROCID': '0',
    'SLURM_STEP_NODELIST': '',
  },
  'a shell in an allocation': {**SLURM, 'SLURM_STEP_NUM_TASKS': '1'},
  'one task': {**SLURM, 'SLURM_NTASKS': '1'},
  'empty': dict(SLURM_NTASKS='', JAX_NUM_PROCESSES='', JAX_PROCESS_ID=' '),
  'no number, and no task': dict(SLURM_NTASKS='4(x2)'),
  'mpirun -n 1': dict(OMPI_COMM_WORLD_SIZE='1', OMPI_COMM_WORLD_RANK='0'),
  'mpiexec -n 1': {**HYDRA, 'PMI_SIZE': '1', 'PMI_RANK': '0'},
  'one host': ONE_HOST,
  'one host of one slice': {
    **ONE_HOST,
    **SLICES,
    'MEGASCALE_NUM_SLICES': '1',
    'MEGASCALE_SLICE_ID': '0',
  },
  'a pod of Kubernetes': dict(KUBERNETES_SERVICE_HOST='10.0.0.1'),
}


@pytest.mark.parametrize('env', ALONE.values(), ids=ALONE)
def test_one_process_starts_alone(env):
  assert find(env, tpu=False) is None


def test_only_a_machine_with_a_tpu_asks_a_metadata_server():
  assert find({}, tpu=False) is None
  assert find({'TPU_SKIP_MDS_QUERY': '1'}) is None
  assert find(ONE_HOST) is None


def tasks(per_node, node='0', local='0', visible=EIGHT, **more):
  """A task of Slurm that sees some GPUs."""
  env = dict(
    SLURM_STEP_TASKS_PER_NODE=per_node,
    SLURM_NODEID=node,
    SLURM_LOCALID=local,
    CUDA_VISIBLE_DEVICES=visible,
  )
  return {**SLURM, **env, **more}


ALL, HALF, PART = None, [4, 5, 6, 7], [3]
UUIDS = ','.join(f'GPU-{i}cd8-11' for i in range(8))
GPUS = [
  (tasks('1(x4)'), ALL),
  (tasks('1(x4)', visible=UUIDS), ALL),
  (tasks('1(x4)', visible=''), ALL),
  ({**SLURM, 'SLURM_NTASKS_PER_NODE': '1'}, ALL),
  ({**SLURM, 'SLURM_LOCALID': '3', 'SLURM_NTASKS_PER_NODE': '8'}, PART),
  (tasks('8(x2)', '1', '3'), PART),
  (tasks('8(x2)', '1', '3', UUIDS), PART),
  (tasks('2(x4)', '1', '1'), HALF),
  (tasks('2,1', '0', '1'), HALF),
  (tasks('2,1', '1', '0'), ALL),
  (tasks('1(x3),2', '2', '0'), ALL),
  (tasks('1(x3),2', '3', '1'), HALF),
  # Nobody says how many tasks there are: one a GPU, as JAX has it.
  ({**SLURM, 'SLURM_LOCALID': '3', 'CUDA_VISIBLE_DEVICES': EIGHT}, PART),
  (tasks('2,1', '7', '3'), PART),
  # --gpus-per-task and --gpu-bind: the task sees its own alone.
  (tasks('8', local='3', visible='3'), ALL),
  (tasks('8', local='3', visible='MIG-1,MIG-2'), ALL),
  (tasks('2', local='1', visible='0,1,2,3', SLURM_GPUS_PER_TASK='4'), ALL),
  (tasks('2', local='1', visible='0,1', SLURM_GPUS_PER_TASK='a100:2'), ALL),
  (tasks('2', local='1', visible='4,5,6,7', SLURM_STEP_GPUS=EIGHT), ALL),
  # --gpu-bind=none hides nothing.
  (tasks('2', local='1', SLURM_GPUS_PER_TASK='4'), HALF),
  (tasks('2', local='1', SLURM_STEP_GPUS=EIGHT), HALF),
  # No GPU: nothing is shared.
  (tasks('8', local='3', visible=''), ALL),
  (tasks('8', local='3', visible='-1'), ALL),
  (tasks('8', local='3', visible='NoDevFiles'), ALL),
  (tasks('3', local='1', JAX_PLATFORMS='cpu'), ALL),
  (tasks('8', local='3', JAX_PLATFORMS='cuda,cpu'), PART),
  # By hand.
  (tasks('8', local='3', JAX_LOCAL_DEVICE_IDS='0,1'), ALL),
  ({**OPEN_MPI, 'OMPI_COMM_WORLD_LOCAL_SIZE': '1'}, ALL),
  ({**OPEN_MPI, 'OMPI_COMM_WORLD_LOCAL_SIZE': '2'}, HALF),
  (OPEN_MPI, [1]),
  (HYDRA, HALF),
  ({**HYDRA, 'MPI_LOCALNRANKS': '4', 'ROCR_VISIBLE_DEVICES': '0,1,2,3'}, [1]),
]


@pytest.mark.parametrize(('env', 'expected'), GPUS)
def test_each_task_has_its_share_of_the_gpus(env, expected):
  found = find(env, gpus=8)
  assert found
  assert found.gpus == expected


@pytest.mark.parametrize(
  ('env', 'count'),
  [
    ({}, 5),
    ({'CUDA_VISIBLE_DEVICES': '0,1'}, 2),
    ({'CUDA_VISIBLE_DEVICES': ' 2 , 0'}, 2),
    ({'CUDA_VISIBLE_DEVICES': ''}, 0),
    ({'CUDA_VISIBLE_DEVICES': '-1'}, 0),
    ({'CUDA_VISIBLE_DEVICES': 'NoDevFiles'}, 0),
    ({'CUDA_VISIBLE_DEVICES': '0,1,-1,2'}, 2),
    ({'CUDA_VISIBLE_DEVICES': 'GPU-8932f937-d72c,GPU-2b'}, 2),
    ({'CUDA_VISIBLE_DEVICES': 'MIG-GPU-8932/1/0,MIG-2b'}, 1),
    ({'ROCR_VISIBLE_DEVICES': '0,1,2'}, 3),
    ({'CUDA_VISIBLE_DEVICES': '0', 'ROCR_VISIBLE_DEVICES': '0,1,2'}, 1),
    ({'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': '0'}, 0),
    ({'JAX_PLATFORMS': 'cuda', 'CUDA_VISIBLE_DEVICES': '0'}, 1),
  ],
)
def test_visible_gpus_are_counted(env, count):
  assert cluster.visible_gpus(env, files=5) == count


def without(env, name):
  return {key: value for key, value in env.items() if key != name}


@pytest.mark.parametrize(
  ('env', 'said'),
  [
    (without(HAND, 'JAX_NUM_PROCESSES'), 'JAX_NUM_PROCESSES is not set: '),
    (without(HAND, 'JAX_PROCESS_ID'), 'JAX_PROCESS_ID is not set: '),
    (
      without(HAND, 'JAX_COORDINATOR_ADDRESS'),
      'but JAX_COORDINATOR_ADDRESS is not set: ',
    ),
    (
      dict(JAX_COORDINATOR_ADDRESS='node1:1'),
      'JAX_COORDINATOR_ADDRESS=node1:1, but JAX_PROCESS_ID and '
      'JAX_NUM_PROCESSES are not set: ',
    ),
    ({**HAND, 'JAX_PROCESS_ID': '2'}, 'JAX_PROCESS_ID=2 must be below JAX_NUM'),
    ({**HAND, 'JAX_PROCESS_ID': '-1'}, 'JAX_PROCESS_ID=-1 must be a whole'),
    ({**HAND, 'JAX_NUM_PROCESSES': 'two'}, 'PROCESSES=two must be a whole'),
    ({**HAND, 'JAX_NUM_PROCESSES': '0'}, 'must be below JAX_NUM_PROCESSES=0'),
    (without(SLURM, 'SLURM_LOCALID'), 'but SLURM_LOCALID is not set'),
    (without(SLURM, 'SLURM_JOB_ID'), 'but SLURM_JOB_ID is not set'),
    ({**SLURM, 'SLURM_NTASKS': 'x'}, 'SLURM_NTASKS=x must be a whole'),
    ({**SLURM, 'SLURM_PROCID': '4'}, 'PROCID=4 must be below SLURM_NTASKS=4'),
    (tasks('2x4'), 'SLURM_STEP_TASKS_PER_NODE=2x4 must be numbers of tasks'),
    (tasks('3'), '3 tasks on this machine cannot share its 8 GPUs evenly'),
    (tasks('4', visible='0,1'), '4 tasks on this machine cannot share its 2'),
    (without(OPEN_MPI, 'OMPI_COMM_WORLD_RANK'), 'WORLD_RANK is not set'),
    (
      without(OPEN_MPI, 'OMPI_COMM_WORLD_LOCAL_RANK'),
      'LOCAL_RANK is not set: ',
    ),
    ({**OPEN_MPI, 'OMPI_COMM_WORLD_RANK': '4'}, 'RANK=4 must be below OMPI'),
    (without(HYDRA, 'PMI_RANK'), 'PMI_SIZE=4, but PMI_RANK is not set: '),
    (without(GKE, 'TPU_WORKER_ID'), 'a,b, but TPU_WORKER_ID is not set'),
    ({**GKE, 'TPU_WORKER_ID': '2'}, 'TPU_WORKER_ID=2 must be below'),
    ({**GKE, 'TPU_WORKER_ID': 'b'}, 'TPU_WORKER_ID=b must be a whole number'),
    (
      {**GKE, **without(SLICES, 'MEGASCALE_SLICE_ID')},
      'MEGASCALE_NUM_SLICES=2, but MEGASCALE_SLICE_ID is not set',
    ),
    (
      {**ONE_HOST, **without(SLICES, 'MEGASCALE_COORDINATOR_ADDRESS')},
      'but MEGASCALE_COORDINATOR_ADDRESS is not set',
    ),
    (
      {**GKE, **SLICES, 'MEGASCALE_SLICE_ID': '2'},
      'MEGASCALE_SLICE_ID=2 must be below MEGASCALE_NUM_SLICES=2',
    ),
  ],
)
def test_what_is_half_set_is_named(env, said):
  with pytest.raises(InputError) as error:
    find(env, tpu='TPU_WORKER_HOSTNAMES' in env)
  assert said in str(error.value)
  assert '\n' not in str(error.value)


def test_hosts_of_a_tpu_need_its_library():
  with pytest.raises(InputError, match="4 hosts, .* 'lasers_jax.tpu.'"):
    find({**GKE, **SLICES}, tpu=False)
