"""Two processes of four devices each, on one machine, against one of eight."""

import json
import os
import re
import signal
import socket
import types

import numpy as np
import pytest

from lasers_jax.cli import program
from lasers_jax.experiment import evaluate, loop
from lasers_jax.experiment.hooks import Hooks
from tests import tiny

pytestmark = pytest.mark.slow


def start_two(script, *flags):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  return [
    tiny.start(
      script,
      *flags,
      devices=4,
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES='2',
      JAX_PROCESS_ID=str(i),
    )
    for i in range(2)
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
def run_of_two(pictures, tmp_path_factory):
  """A run of two processes, of which one was asked to stop."""
  workdir = tmp_path_factory.mktemp('two') / 'run'
  changes = dict(
    steps=tiny.ENDLESS, evaluate_every=3, mesh__fsdp=2, mesh__model=2
  )
  flags = tiny.train_flags(pictures, workdir, **changes)
  processes = start_two('train.py', *flags)
  tiny.wait_for(
    lambda: max(tiny.checkpoints(workdir), default=0) > 5, processes[0]
  )
  processes[1].send_signal(signal.SIGINT)
  logs = [log for _, log in finish(processes, program.STOPPED)]
  return types.SimpleNamespace(workdir=workdir, logs=logs)


def test_two_processes_train_as_one(run_of_two, tiny_run):
  np.testing.assert_allclose(
    tiny.losses(run_of_two.workdir)[:6],
    tiny.losses(tiny_run.workdir),
    rtol=1e-5,
  )
  assert 'processes  2' in run_of_two.logs[0]
  assert 'mesh       data=2 × fsdp=2 × model=2' in run_of_two.logs[0]


def test_the_first_process_alone_checks_pictures(run_of_two):
  first, second = run_of_two.logs
  assert 'no folder for validation: a tenth each of train is held out' in first
  assert 'held out' not in second
  assert (run_of_two.workdir / 'checked.npy').exists()


def test_two_processes_say_the_same_of_data(tmp_path):
  flags = tiny.train_flags(tmp_path / 'none', tmp_path / 'run')
  for process in start_two('train.py', *flags):
    _, log = process.communicate(timeout=240)
    assert process.returncode == 2, log
    assert f"error: there is no folder '{tmp_path}/none'" in log
    assert 'Traceback' not in log


def test_two_processes_evaluate_as_one(run_of_two, tiny_run):
  one, two = (
    [
      line
      for line in tiny.metrics(run.workdir)
      if line['step'] == 6 and 'validation/psnr' in line
    ]
    for run in (tiny_run, run_of_two)
  )
  assert one[0].keys() == two[0].keys()
  for name in 'psnr', 'ssim', 'usage', 'perplexity', 'bits_per_pixel':
    name = f'validation/{name}'
    np.testing.assert_allclose(two[0][name], one[0][name], rtol=1e-4)


def test_asking_one_stops_both(run_of_two):
  last = tiny.checkpoints(run_of_two.workdir)[-1]
  for log in run_of_two.logs:
    assert f'asked to stop: saved step {last}' in log
  steps = [
    line['step'] for line in tiny.metrics(run_of_two.workdir) if 'loss' in line
  ]
  assert steps == list(range(1, last + 1))


def test_two_processes_write_one_set_of_results(run_of_two, tmp_path):
  flags = f'--workdir={run_of_two.workdir}', f'--output={tmp_path / "two"}'
  said = finish(start_two('evaluate.py', *flags))
  assert len(said[0][0]) == 1, said[0][0]
  assert said[0][0][0].startswith('PSNR ')
  assert said[1][0] == []
  two = json.loads((tmp_path / 'two' / 'results.json').read_text())
  one = evaluate.evaluate(str(run_of_two.workdir), output=str(tmp_path / 'one'))
  assert two['protocol']['weights'] == one['protocol']['weights']
  for name in 'psnr', 'ssim':
    np.testing.assert_allclose(two[name]['mean'], one[name]['mean'], rtol=1e-6)
  for name in 'usage', 'perplexity', 'bits_per_pixel':
    assert two[name] == one[name]


def test_one_process_takes_over(run_of_two, pictures):
  last = tiny.checkpoints(run_of_two.workdir)[-1]
  config = tiny.config(pictures, steps=tiny.ENDLESS)

  class Stop(Hooks):
    def on_batch(self, step, batch):
      os.kill(os.getpid(), signal.SIGTERM)

  path = str(run_of_two.workdir)
  state = loop.train_and_evaluate(config, path, hooks=Stop())
  assert state.step == last + 1
  assert tiny.metrics(run_of_two.workdir)[-1]['step'] == last + 1
