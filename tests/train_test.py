"""A whole run: what it leaves, and that it survives."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

import train
from lasers_jax import scripts
from lasers_jax.errors import TrainingError
from tests import tiny


def run(config, workdir) -> dict[str, np.ndarray]:
  return tiny.on_host(train.train_and_evaluate(config, str(workdir)))


def test_a_run_leaves_its_files(tiny_run):
  assert tiny.checkpoints(tiny_run.workdir) == [4, 6]
  assert (tiny_run.workdir / 'pictures' / '6.png').exists()
  stored = json.loads((tiny_run.workdir / 'config.json').read_text())
  assert stored == tiny_run.config
  lines = tiny.metrics(tiny_run.workdir)
  assert [x['step'] for x in lines] == [1, 2, 3, 4, 5, 6, 6]
  assert {'validation/psnr', 'validation/bits_per_pixel'} < lines[-1].keys()


def test_a_run_says_what_it_is(tiny_run):
  text = '\n'.join(tiny_run.lines)
  for expected in (
    'processes  1',
    'devices    8 × cpu',
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
  assert f'the pictures of folder:{pictures} are now in folder:{moved}' in log
  shutil.copy(moved / 'test' / '00.png', moved / 'test' / 'another.png')
  run(config, copied_run)
  (line,) = [x for x in log if x.startswith('the pictures of the split')]
  assert "'test' are not those" in line and '10 then, 11 now' in line


def run_until(config, workdir, last, monkeypatch) -> dict[str, np.ndarray]:
  """Runs a config, and sends SIGTERM to it during a step, by its number."""
  start = max(tiny.checkpoints(workdir), default=0)
  # A new run takes one batch more, to begin with.
  due = last - start + (start == 0)
  batches, put = [], train.put_images

  def put_and_interrupt(batch, mesh):
    batches.append(batch)
    if len(batches) == due:
      os.kill(os.getpid(), signal.SIGTERM)
    return put(batch, mesh)

  with monkeypatch.context() as patch:
    patch.setattr(train, 'put_images', put_and_interrupt)
    return run(config, workdir)


def test_sigterm_saves_between_two_steps(tiny_run, tmp_path, monkeypatch, log):
  config = {**tiny_run.config, 'evaluate_every': 0, 'checkpoint_every': 0}
  assert run_until(config, tmp_path, 3, monkeypatch)['.step'] == 3
  assert tiny.checkpoints(tmp_path) == [3]
  assert 'asked to stop: saved step 3' in log
  tiny.assert_identical(run(config, tmp_path), tiny_run.state)
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
  'mesh',
  [dict(data=1, fsdp=1, model=1), dict(data=2, fsdp=2, model=2)],
  ids=['1', '2x2x2'],
)
def test_any_mesh_gives_the_same_numbers(tiny_run, tmp_path, mesh):
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


def test_a_loss_that_is_not_finite_stops_the_run(
  tiny_run, copied_run, monkeypatch
):
  shutil.rmtree(copied_run / 'checkpoints' / '6')
  config = {**tiny_run.config, 'evaluate_every': 0}
  restore = train.Checkpoints.restore

  def restore_broken(self, target):
    state = restore(self, target)
    biases = state.params['decoder']['Conv_0']
    biases['bias'] = jax.device_put(
      np.full(biases['bias'].shape, np.nan, np.float32),
      biases['bias'].sharding,
    )
    return state

  with monkeypatch.context() as patch:
    patch.setattr(train.Checkpoints, 'restore', restore_broken)
    with pytest.raises(TrainingError, match='pixel is nan at step 5.*-5.npz'):
      run(config, copied_run)
  kept = np.load(copied_run / 'failure-5.npz')
  assert kept['step'] == 5 and kept['term'] == 'pixel'
  assert kept['image'].shape == (8, 16, 16, 3)
  assert tiny.checkpoints(copied_run) == [4]
  tiny.assert_identical(run(config, copied_run), tiny_run.state)


def test_sigkill_and_then_sigterm(tiny_run, pictures, tmp_path, monkeypatch):
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
  assert again.returncode == scripts.STOPPED, log
  last = tiny.checkpoints(workdir)[-1]
  assert f'asked to stop: saved step {last}' in log
  steps = [line['step'] for line in tiny.metrics(workdir)]
  assert steps == list(range(1, last + 1))
  assert tiny.losses(workdir)[:6] == tiny.losses(tiny_run.workdir)

  config = tiny.config(pictures, steps=tiny.ENDLESS, checkpoint_every=0)
  other = tmp_path / 'other'
  never_stopped = run_until(config, other, last, monkeypatch)
  assert tiny.losses(workdir) == tiny.losses(other)
  then = run_until(config, workdir, last + 1, monkeypatch)
  never_stopped = run_until(config, other, last + 1, monkeypatch)
  tiny.assert_identical(then, never_stopped)
