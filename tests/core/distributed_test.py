"""Which processes the environment names, and what it leaves out."""

import socket
import subprocess
import sys
import threading

import jax
import pytest

from lasers_jax.core import distributed
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
  OMPI_COMM_WORLD_SIZE='2',
  OMPI_COMM_WORLD_RANK='0',
  OMPI_COMM_WORLD_LOCAL_RANK='0',
  OMPI_MCA_orte_hnp_uri='1.0;tcp://10.0.0.1:1',
)
TPU = dict(TPU_WORKER_HOSTNAMES='a,b', TPU_WORKER_ID='1')


@pytest.fixture
def start(monkeypatch):
  """Starts with an environment; gives what JAX was asked, or None."""
  for name in {*HAND, *SLURM, *OPEN_MPI, *TPU, 'SLURM_STEP_NUM_TASKS'}:
    monkeypatch.delenv(name, raising=False)
  asked = []

  def start(env):
    for name, value in env.items():
      monkeypatch.setenv(name, value)
    monkeypatch.setattr(
      jax.distributed, 'initialize', lambda **given: asked.append(given)
    )
    distributed.initialize_distributed()
    return asked[0] if asked else None

  return start


def test_all_that_is_given_by_hand_is_passed_on(start):
  given = start(HAND)
  given.pop('initialization_timeout')
  assert given == dict(
    coordinator_address='node1:1234', num_processes=2, process_id=1
  )


@pytest.mark.parametrize('env', [SLURM, OPEN_MPI, TPU])
def test_what_a_scheduler_started_is_left_to_jax(start, env):
  assert start(env).keys() == {'initialization_timeout'}


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
  'one host': dict(TPU_WORKER_HOSTNAMES='localhost', TPU_WORKER_ID='0'),
}


@pytest.mark.parametrize('env', ALONE.values(), ids=ALONE)
def test_one_process_starts_alone(start, env):
  assert start(env) is None


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
    ({**HAND, 'JAX_PROCESS_ID': '2'}, 'JAX_PROCESS_ID=2 must be below JAX_NUM'),
    ({**HAND, 'JAX_PROCESS_ID': '-1'}, 'JAX_PROCESS_ID=-1 must be a whole'),
    ({**HAND, 'JAX_NUM_PROCESSES': 'two'}, 'PROCESSES=two must be a whole'),
    ({**HAND, 'JAX_NUM_PROCESSES': '0'}, 'must be below JAX_NUM_PROCESSES=0'),
    ({**HAND, 'JAX_COORDINATOR_ADDRESS': 'node1'}, 'node1 must be HOST:PORT'),
    ({**HAND, 'JAX_COORDINATOR_ADDRESS': 'node1:0'}, 'must be HOST:PORT'),
    ({**HAND, 'JAX_COORDINATOR_ADDRESS': 'a:99999'}, 'must be HOST:PORT'),
    (without(SLURM, 'SLURM_LOCALID'), 'but SLURM_LOCALID is not set'),
    (without(SLURM, 'SLURM_JOB_ID'), 'but SLURM_JOB_ID is not set'),
    ({**SLURM, 'SLURM_NTASKS': 'x'}, 'SLURM_NTASKS=x must be a whole'),
    ({**SLURM, 'SLURM_PROCID': '4'}, 'PROCID=4 must be below SLURM_NTASKS=4'),
    (without(OPEN_MPI, 'OMPI_COMM_WORLD_RANK'), 'WORLD_RANK is not set'),
    (without(OPEN_MPI, 'OMPI_MCA_orte_hnp_uri'), 'hnp_uri is not set'),
    ({**OPEN_MPI, 'OMPI_COMM_WORLD_RANK': '2'}, 'RANK=2 must be below OMPI'),
    (without(TPU, 'TPU_WORKER_ID'), 'a,b, but TPU_WORKER_ID is not set'),
    ({**TPU, 'TPU_WORKER_ID': '2'}, 'TPU_WORKER_ID=2 must be below'),
    ({**TPU, 'TPU_WORKER_ID': 'b'}, 'TPU_WORKER_ID=b must be a whole number'),
  ],
)
def test_what_is_half_set_is_named(start, env, said):
  with pytest.raises(InputError) as error:
    start(env)
  assert said in str(error.value)
  assert '\n' not in str(error.value)


def test_what_jax_cannot_read_is_one_error(start, monkeypatch):
  def fail(**_):
    raise ValueError('Number of processes must be defined.')

  env = dict(JAX_COORDINATOR_ADDRESS='node1:1234')
  assert start(env) is not None
  monkeypatch.setattr(jax.distributed, 'initialize', fail)
  with pytest.raises(InputError, match='cannot meet: Number of processes must'):
    distributed.initialize_distributed()


def test_an_address_in_use_is_named(start):
  with socket.create_server(('', 0)) as taken:
    address = f'localhost:{taken.getsockname()[1]}'
    env = {**HAND, 'JAX_PROCESS_ID': '0', 'JAX_COORDINATOR_ADDRESS': address}
    with pytest.raises(InputError, match=f'listen at {address}: .*in use'):
      start(env)


WAITS = """
import time
from lasers_jax.core import distributed
distributed._SILENCE = 0
with distributed._waiting(0.3, ADDRESS):
  time.sleep(20)
"""


@pytest.mark.parametrize('answers', [False, True])
def test_nobody_waits_for_ever(answers):
  with socket.create_server(('localhost', 0)) as server:
    address = f'localhost:{server.getsockname()[1]}'
    if not answers:
      server.close()
    code = WAITS.replace('ADDRESS', repr(address))
    done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True
    )
  why = 'not all others are there' if answers else 'no answer'
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: waited 0.3 s for the other processes at ')
  assert f'{address}: {why}; start all' in line


def test_a_wait_that_is_over_ends_nothing():
  with distributed._waiting(60, ''):
    timers = [
      x for x in threading.enumerate() if isinstance(x, threading.Timer)
    ]
    assert len(timers) == 2
  for timer in timers:
    timer.join(timeout=5)
    assert not timer.is_alive()
