"""A whole run: what it leaves, and that it survives."""

import hashlib
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from lasers_jax.cli import program
from lasers_jax.core import signals
from lasers_jax.errors import TrainingError
from lasers_jax.experiment import loop
from lasers_jax.experiment.hooks import Hooks
from tests import tiny

pytestmark = pytest.mark.slow


def run(config, workdir, hooks=None) -> dict[str, np.ndarray]:
  state = loop.train_and_evaluate(config, str(workdir), hooks=hooks)
  return tiny.on_host(state)


class At(Hooks):
  """Acts at one turn of a run, before one step."""

  def __init__(self, turn, step, act):
    self._step, self._act = step, act
    setattr(self, turn, self._look)

  def _look(self, step, *_):
    if step == self._step:
      self._act()


def ask(number=signal.SIGTERM):
  """Asks this process to stop."""
  os.kill(os.getpid(), number)


def test_a_run_leaves_its_files(tiny_run):
  assert tiny.checkpoints(tiny_run.workdir) == [4, 6]
  assert (tiny_run.workdir / 'pictures' / '6.png').exists()
  stored = json.loads((tiny_run.workdir / 'config.json').read_text())
  assert stored == {'format': 1, **tiny_run.config}
  lines = tiny.metrics(tiny_run.workdir)
  assert [x['step'] for x in lines] == [1, 2, 3, 4, 5, 6, 6]
  assert {'validation/psnr', 'validation/bits_per_pixel'} < lines[-1].keys()


def test_a_run_says_what_it_is(tiny_run):
  text = '\n'.join(tiny_run.lines)
  for expected in (
    'processes  1',
    'devices    8 × cpu',
    '| decoder/Conv_0/kernel',  # the table of parameters
    'mesh       data=8 × fsdp=1 × model=1',
    'bottleneck 64, decoder',  # D · K parameters
    # S (log2 K + 8) bits for a site of 4 pixels
    f'code       {(7 + 2 * 8) / 4:.4g} bits per pixel',
    'bytes per device',
    'steps      0 of 6 done',
    'validation at step 6: PSNR',
  ):
    assert expected in text


def test_the_step_is_compiled_once(tiny_run):
  assert tiny_run.compiled.count('jit(train_step)') == 1


def test_going_on_gives_the_run_that_never_stopped(tiny_run, copied_run, log):
  shutil.rmtree(copied_run / 'checkpoints' / '6')
  state = run({**tiny_run.config, 'evaluate_every': 0}, copied_run)
  assert 'steps      4 of 6 done' in log
  tiny.assert_identical(state, tiny_run.state)
  assert tiny.losses(copied_run) == tiny.losses(tiny_run.workdir)


def test_a_finished_run_has_nothing_to_do(tiny_run, copied_run):
  tiny.assert_identical(run(tiny_run.config, copied_run), tiny_run.state)
  assert tiny.metrics(copied_run) == tiny.metrics(tiny_run.workdir)


def test_pictures_may_move_and_other_ones_are_told(
  tiny_run, pictures, copied_run, tmp_path, log
):
  moved = shutil.copytree(pictures, tmp_path / 'moved')
  data = {**tiny_run.config['data'], 'name': f'folder:{moved}'}
  config = {**tiny_run.config, 'data': data}
  tiny.assert_identical(run(config, copied_run), tiny_run.state)
  assert f'the images of folder:{pictures} are now in folder:{moved}' in log
  shutil.copy(moved / 'test' / '00.png', moved / 'test' / 'another.png')
  run(config, copied_run)
  (line,) = [x for x in log if x.startswith('the images of the split')]
  assert "'test' are not those" in line
  assert '10 then, 11 now' in line


def run_until(
  config, workdir, last, number=signal.SIGTERM
) -> dict[str, np.ndarray]:
  """Runs a config, and sends a signal to it during a step, by its number."""
  hooks = At('on_batch', last, lambda: ask(number))
  return run(config, workdir, hooks)


@pytest.mark.parametrize(
  'number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
)
def test_a_signal_saves_between_two_steps(tiny_run, copied_run, log, number):
  changes = {'steps': 9, 'evaluate_every': 0, 'checkpoint_every': 0}
  before = signal.getsignal(number)
  config = {**tiny_run.config, **changes}
  stopped = run_until(config, copied_run, 7, number)
  assert stopped['.step'] == 7
  assert tiny.checkpoints(copied_run)[-1] == 7
  assert log[-1] == 'asked to stop: saved step 7'
  assert signal.getsignal(number) == before


@pytest.mark.parametrize('turn', ['on_validation', 'on_results'])
def test_going_on_after_a_stop_in_a_validation(tiny_run, tmp_path, log, turn):
  config = {**tiny_run.config, 'checkpoint_every': 0}
  hooks = At(turn, 3, lambda: ask(signal.SIGINT))
  assert run({**config, 'evaluate_every': 3}, tmp_path, hooks)['.step'] == 3
  assert tiny.checkpoints(tmp_path) == [3]
  assert log[-1] == 'asked to stop: saved step 3'
  assert not (tmp_path / 'pictures').exists()
  again = run({**config, 'evaluate_every': 0}, tmp_path)
  tiny.assert_identical(again, tiny_run.state)


def block() -> None:
  """Asks to stop, and stays in native code, where no handler runs."""
  ask()
  hashlib.pbkdf2_hmac('sha256', b'', b'', 3_000_000)


@pytest.mark.parametrize(
  ('turn', 'step'), [('on_validation', 7), ('on_batch', 8)]
)
def test_what_does_not_come_back_is_saved_from_outside(
  tiny_run, copied_run, monkeypatch, turn, step
):
  rescued = []

  def end(number, rescue):  # A script ends here.
    if not rescued:
      rescue()
      rescued.append(tiny.checkpoints(copied_run)[-1])

  changes = {'steps': 9, 'evaluate_every': 7, 'log_every': 0}
  monkeypatch.setattr(signals, 'PATIENCE', 0.1)
  with signals.Listener(end):
    config = {**tiny_run.config, **changes}
    run(config, copied_run, At(turn, step, block))
  assert rescued == [7]


def test_asked_before_the_first_step_a_run_ends_at_once(tiny_run, tmp_path):
  class Stop(Hooks):
    def on_start(self, experiment, mesh, state):
      ask()

  with signals.Listener(), pytest.raises(signals.Asked):
    run(tiny_run.config, tmp_path, Stop())
  assert tiny.checkpoints(tmp_path) == []


def test_hooks_see_the_run(tiny_run, copied_run, pictures):
  shutil.rmtree(copied_run / 'checkpoints' / '6')
  seen = []

  class Watch(Hooks):
    def on_start(self, experiment, mesh, state):
      seen.append(('start', int(state.step), experiment.steps))

    def on_batch(self, step, batch):
      seen.append(('batch', step, batch['image'].shape))

    def on_step(self, step, metrics):
      seen.append(('step', step, metrics['loss']))

    def on_validation(self, step):
      seen.append(('validation', step))

    def on_results(self, step, results):
      seen.append(('results', step, results['psnr']['count']))

  run(tiny_run.config, copied_run, Watch())
  shape, losses = (8, 16, 16, 3), tiny.losses(tiny_run.workdir)
  assert seen == [
    ('start', 4, 6),
    ('batch', 5, shape),
    ('batch', 6, shape),
    ('step', 5, losses[4]),
    ('step', 6, losses[5]),
    ('validation', 6),
    ('results', 6, tiny.TEST),
  ]


@pytest.mark.slow
def test_another_mesh_gives_the_same_numbers(tiny_run, tmp_path):
  mesh = dict(data=2, fsdp=2, model=2)
  config = {**tiny_run.config, 'mesh': mesh, 'evaluate_every': 0}
  run(config, tmp_path)
  np.testing.assert_allclose(
    tiny.losses(tmp_path), tiny.losses(tiny_run.workdir), rtol=1e-5
  )


def test_other_devices_take_over(tiny_run, copied_run):
  shutil.rmtree(copied_run / 'checkpoints' / '6')
  mesh = dict(data=1, fsdp=1, model=1)
  run({**tiny_run.config, 'mesh': mesh, 'evaluate_every': 0}, copied_run)
  np.testing.assert_allclose(
    tiny.losses(copied_run), tiny.losses(tiny_run.workdir), rtol=1e-5
  )


def test_a_loss_that_is_not_finite_stops_the_run(tiny_run, copied_run):
  shutil.rmtree(copied_run / 'checkpoints' / '6')
  config = {**tiny_run.config, 'evaluate_every': 0}

  class Break(Hooks):
    def on_start(self, experiment, mesh, state):
      biases = state.params['decoder']['Conv_0']
      biases['bias'] = jax.device_put(
        np.full(biases['bias'].shape, np.nan, np.float32),
        biases['bias'].sharding,
      )

  with pytest.raises(TrainingError, match='pixel is nan at step 5.*-5.npz'):
    run(config, copied_run, Break())
  kept = np.load(copied_run / 'failure-5.npz')
  assert kept['step'] == 5
  assert kept['term'] == 'pixel'
  assert kept['image'].shape == (8, 16, 16, 3)
  assert tiny.checkpoints(copied_run) == [4]
  tiny.assert_identical(run(config, copied_run), tiny_run.state)


@pytest.mark.slow
def test_sigkill_and_then_sigterm(tiny_run, pictures, tmp_path):
  """Processes of their own, to one run after another."""
  workdir = tmp_path / 'run'
  flags = tiny.train_flags(pictures, workdir, steps=tiny.ENDLESS)

  killed = tiny.start('train.py', *flags)
  tiny.wait_for(lambda: max(tiny.checkpoints(workdir), default=0) > 3, killed)
  killed.kill()
  killed.communicate()
  kept = tiny.checkpoints(workdir)[-1]

  again = tiny.start('train.py', *flags)
  tiny.wait_for(lambda: tiny.checkpoints(workdir)[-1] > kept, again)
  again.terminate()
  _, log = again.communicate(timeout=240)
  assert again.returncode == program.STOPPED, log
  last = tiny.checkpoints(workdir)[-1]
  assert f'asked to stop: saved step {last}' in log
  steps = [line['step'] for line in tiny.metrics(workdir)]
  assert steps == list(range(1, last + 1))
  assert tiny.losses(workdir)[:6] == tiny.losses(tiny_run.workdir)

  config = tiny.config(pictures, steps=tiny.ENDLESS, checkpoint_every=0)
  other = tmp_path / 'other'
  then = run_until(config, workdir, last + 1)
  never_stopped = run_until(config, other, last + 1)
  assert tiny.losses(workdir) == tiny.losses(other)
  tiny.assert_identical(then, never_stopped)
