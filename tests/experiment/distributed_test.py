"""Two and four processes, of eight devices in all, against one of eight.

What is set by hand: tests/core/distributed_test.py.
"""

import json
import re
import signal
import socket
import types

import jax
import numpy as np
import pytest

from lasers_jax.cli import program
from lasers_jax.experiment import evaluate, loop
from lasers_jax.experiment.loading import load
from tests import tiny
from tests.core.metadata import VM, metadata_server

pytestmark = pytest.mark.slow


def slurm(count, i, port):
  """One task a node, of two GPUs."""
  return dict(
    SLURM_JOB_ID='4711',
    SLURM_STEP_NODELIST=f'localhost,node[2-{count}]',
    SLURM_STEP_TASKS_PER_NODE=f'1(x{count})',
    SLURM_NTASKS=str(count),
    SLURM_PROCID=str(i),
    SLURM_NODEID=str(i),
    SLURM_LOCALID='0',
    CUDA_VISIBLE_DEVICES='0,1',
    JAX_COORDINATOR_PORT=str(port),
  )


def open_mpi(count, i, port):
  """All on one node, of eight GPUs."""
  return dict(
    OMPI_MCA_orte_hnp_uri='1531576320.0;tcp://127.0.0.1:34911',
    OMPI_COMM_WORLD_SIZE=str(count),
    OMPI_COMM_WORLD_RANK=str(i),
    OMPI_COMM_WORLD_LOCAL_SIZE=str(count),
    OMPI_COMM_WORLD_LOCAL_RANK=str(i),
    CUDA_VISIBLE_DEVICES='0,1,2,3,4,5,6,7',
    JAX_COORDINATOR_PORT=str(port),
  )


def gke_slices(count, i, port):
  """Two slices, of so many hosts together."""
  hosts = count // 2
  return dict(
    JAX_FORCE_TPU_INIT='1',
    TPU_WORKER_HOSTNAMES=','.join(['localhost'] * hosts),
    TPU_WORKER_ID=str(i % hosts),
    MEGASCALE_NUM_SLICES='2',
    MEGASCALE_SLICE_ID=str(i // hosts),
    MEGASCALE_COORDINATOR_ADDRESS='localhost',
    JAX_COORDINATOR_PORT=str(port),
  )


def tpu_vm(i):
  """What the metadata server says to the i-th VM of two."""
  hosts = 'localhost,localhost'
  return metadata_server(
    **{**VM, 'agent_worker_number': str(i), 'worker_network_endpoints': hosts}
  )


def start(count, launcher, script, *flags):
  """Starts so many processes, with eight devices in all."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  return [
    tiny.start(
      'tests/experiment/launched.py',
      script,
      *flags,
      devices=8 // count,
      **launcher(count, i, port),
    )
    for i in range(count)
  ]


def finish(processes, code=0):
  """Waits for processes; gives the lines of stdout, and stderr, of each."""
  try:
    said = [process.communicate(timeout=240) for process in processes]
  finally:
    for process in processes:
      process.kill()
  for process, (_, log) in zip(processes, said, strict=True):
    assert process.returncode == code, log
  # Gloo, which connects processes on CPUs, says so on stdout, from threads
  # whose lines may break each other's.
  gloo = re.compile(r'\[Gloo\]|peer ranks|^$')
  return [
    ([x for x in out.splitlines() if not gloo.search(x)], log)
    for out, log in said
  ]


@pytest.fixture(scope='module')
def elastic_run(pictures, tmp_path_factory):
  """A run of two processes, of four, and of this one.

  The first two are of Open MPI, and both are asked to stop; the four are of
  two TPU slices, and one is. This one ends the run.
  """
  workdir = tmp_path_factory.mktemp('elastic') / 'run'

  def train(count, launcher, asked, until, **changes):
    flags = tiny.train_flags(pictures, workdir, steps=tiny.ENDLESS, **changes)
    processes = start(count, launcher, 'train.py', *flags)
    tiny.wait_for(
      lambda: max(tiny.checkpoints(workdir), default=0) >= until, processes[0]
    )
    for i in asked:
      processes[i].send_signal(signal.SIGTERM)
    said = finish(processes, program.STOPPED)
    return tiny.checkpoints(workdir)[-1], [log for _, log in said]

  two = train(2, open_mpi, [0, 1], until=8, evaluate_every=6)
  four = train(
    4, gke_slices, [2], until=two[0] + 3, mesh__fsdp=2, mesh__model=2
  )
  end = four[0] + 3
  loop.train_and_evaluate(tiny.config(pictures, steps=end), str(workdir))
  return types.SimpleNamespace(workdir=workdir, two=two, four=four, last=end)


def assert_places(logs):
  """Each process says which it is of how many."""
  for i, log in enumerate(logs):
    devices = f'{8 // len(logs)} of 8 devices (cpu)'
    assert f'process {i} of {len(logs)}: {devices}, process 0 at ' in log
    # JAX alone would take GPU 0 of a node, since its task has the index 0.
    assert 'GPUs left to JAX: all' in log


def test_each_process_says_which_it_is(elastic_run):
  for _, logs in elastic_run.two, elastic_run.four:
    assert_places(logs)
  assert 'processes  4' in elastic_run.four[1][0]
  assert 'mesh       data=2 × fsdp=2 × model=2' in elastic_run.four[1][0]


def test_asking_one_or_all_stops_all_at_one_step(elastic_run):
  for last, logs in elastic_run.two, elastic_run.four:
    for log in logs:
      assert f'asked to stop: saved step {last}' in log
  steps = [x['step'] for x in tiny.metrics(elastic_run.workdir) if 'loss' in x]
  assert steps == list(range(1, elastic_run.last + 1))


def test_two_processes_four_and_one_train_as_one(
  elastic_run, pictures, tmp_path
):
  config = tiny.config(pictures, steps=elastic_run.last, checkpoint_every=0)
  loop.train_and_evaluate(config, str(tmp_path / 'one'))
  np.testing.assert_allclose(
    tiny.losses(elastic_run.workdir),
    tiny.losses(tmp_path / 'one'),
    rtol=1e-4,
  )


def test_the_first_process_alone_checks_pictures(elastic_run):
  first, *others = elastic_run.two[1]
  assert 'no folder for validation: a tenth each of train is held out' in first
  assert 'held out' not in ''.join(others)
  assert (elastic_run.workdir / 'checked.npy').exists()


def test_two_processes_say_the_same_of_data(tmp_path):
  flags = tiny.train_flags(tmp_path / 'none', tmp_path / 'run')
  logs = [log for _, log in finish(start(2, slurm, 'train.py', *flags), 2)]
  assert_places(logs)
  for log in logs:
    assert f"error: there is no folder '{tmp_path}/none'" in log
    assert 'Traceback' not in log


def test_frozen_networks_are_those_of_one_process(tiny_run, pictures, tmp_path):
  changes = dict(
    steps=2,
    network__pretrained=str(tiny_run.workdir),
    network__frozen=True,
    loss__pixel='latent',
    mesh__fsdp=2,
  )
  config = tiny.config(pictures, **changes)
  loop.train_and_evaluate(config, str(tmp_path / 'one'))
  flags = tiny.train_flags(pictures, tmp_path / 'two', **changes)
  for _, log in finish(start(2, slurm, 'train.py', *flags)):
    assert f'frozen     {tiny_run.workdir}' in log
  two = tmp_path / 'two'
  losses = [tiny.losses(x) for x in (two, tmp_path / 'one')]
  np.testing.assert_allclose(*losses, rtol=1e-4)
  # A checkpoint has the bottleneck alone, and loading reads the rest.
  here, there = (load(x).variables['params'] for x in (two, tiny_run.workdir))
  for part in 'encoder', 'decoder':
    jax.tree.map(np.testing.assert_array_equal, here[part], there[part])


def test_two_processes_evaluate_as_one(elastic_run, tiny_run):
  one, two = (
    [
      line
      for line in tiny.metrics(run.workdir)
      if line['step'] == 6 and 'validation/psnr' in line
    ]
    for run in (tiny_run, elastic_run)
  )
  assert one[0].keys() == two[0].keys()
  for name in 'psnr', 'ssim', 'usage', 'perplexity', 'bits_per_pixel':
    name = f'validation/{name}'
    np.testing.assert_allclose(two[0][name], one[0][name], rtol=1e-4)


def means(results, path=''):
  """The mean of each metric of results, by its path."""
  if isinstance(results.get('mean'), float):  # a method has this name, too
    return {path: results['mean']}
  groups = {k: x for k, x in results.items() if isinstance(x, dict)}
  found = [means(x, f'{path}/{k}') for k, x in groups.items()]
  return {k: x for group in found for k, x in group.items()}


def test_two_processes_write_one_set_of_results(pictures, tmp_path):
  config = tiny.config(pictures, steps=2)
  config['degradation'] = {'name': 'inpaint', 'mask': 'mixed'}
  workdir = str(tmp_path / 'run')
  loop.train_and_evaluate(config, workdir)
  flags = f'--workdir={workdir}', f'--output={tmp_path / "two"}'
  with tpu_vm(0) as first, tpu_vm(1) as second:
    servers = first, second

    def gce(count, i, port):
      return dict(
        JAX_FORCE_TPU_INIT='1',
        GCE_METADATA_IP=servers[i],
        JAX_COORDINATOR_PORT=str(port),
      )

    said = finish(start(2, gce, 'evaluate.py', *flags))
  assert len(said[0][0]) == 1, said[0][0]
  assert said[0][0][0].startswith('PSNR ')
  assert said[1][0] == []
  two = json.loads((tmp_path / 'two' / 'results.json').read_text())
  one = evaluate.evaluate(workdir, output=str(tmp_path / 'one'))
  assert two['protocol']['weights'] == one['protocol']['weights']
  # The same damage, image by image, as the share of holes says.
  assert two['hole'] == one['hole']
  expected, found = means(one), means(two)
  assert {
    '/ssim',
    '/psnr_hole',
    '/clean/psnr',
    '/input/psnr',
    '/pasted/psnr',
    '/baselines/biharmonic/psnr_hole',
  } < expected.keys()
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
  for name in 'usage', 'perplexity', 'bits_per_pixel':
    assert two[name] == one[name]
