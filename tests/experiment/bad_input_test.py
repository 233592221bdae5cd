"""User errors get one clear line, and lose nothing."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from lasers_jax.cli import program
from lasers_jax.errors import InputError, TrainingError
from lasers_jax.experiment import loop, settings
from lasers_jax.training import workdir
from tests import tiny


def train_tiny(config, workdir):
  return loop.train_and_evaluate(config, str(workdir))


def open_data(config, workdir):
  """Opens the data of a run, as it does at its start."""
  return loop.open_data(settings.from_config(config), str(workdir))


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (
      dict(optimizer__learing_rate=1.0),
      'nothing reads the config key optimizer.learing_rate; did you mean '
      'optimizer.learning_rate?',
    ),
    (dict(epochs=5), 'nothing reads the config key epochs'),
    (
      dict(bottleneck__decoy=1),
      'nothing reads the config key bottleneck.decoy; did you mean '
      'bottleneck.decay?',
    ),
    (dict(loss__weights={'pixel': 1.0}), 'missing: commitment, dictionary'),
    (dict(bottleneck__S=17), 'S must be from 1 to K = 16, got S = 17'),
    (dict(data__side=15), 'data.side=15 is not a multiple of 2'),
    (dict(data__side=10), 'SSIM needs images of at least 11x11 pixels'),
    (dict(data__resize=12), 'resize 12 is smaller than the crop 16'),
    (dict(network__f=3, data__side=18), 'f = 3 is not a power of two'),
    (dict(network__name='vqave'), "name is 'vqave': did you mean vqvae?"),
    (dict(mesh__data=16), 'needs 16 devices, and there are 8'),
    (dict(batch_size=12), 'batch_size=12 cannot be split 8 ways'),
    (dict(evaluation__batch_size=6), 'evaluation.batch_size=6 cannot be split'),
    (dict(data__train='tarin'), "has no split 'tarin'"),
    (dict(data__name='folder:/no/such'), "no folder '/no/such': check"),
    (dict(data__name='cifar11'), "no data set 'cifar11': "),
  ],
)
def test_values_that_cannot_be_used(pictures, tmp_path, changes, said):
  with pytest.raises(InputError) as error:
    train_tiny(tiny.config(pictures, **changes), tmp_path / 'run')
  assert said in str(error.value)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_an_empty_folder(tmp_path):
  (tmp_path / 'train').mkdir()
  with pytest.raises(InputError, match='no image in .*train.*looked for'):
    train_tiny(tiny.config(tmp_path), tmp_path / 'run')


def test_a_folder_that_cannot_be_read(pictures, tmp_path, monkeypatch):
  scan = os.scandir

  def closed(top):  # As for whom the folder is closed.
    if str(top).endswith('train'):
      raise PermissionError(errno.EACCES, 'Permission denied', str(top))
    return scan(top)

  monkeypatch.setattr(os, 'scandir', closed)
  with pytest.raises(InputError, match="train' cannot be read: Permission"):
    train_tiny(tiny.config(pictures), tmp_path / 'run')


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_a_picture_too_small_to_measure_whole(tmp_path, caplog, split):
  for name in 'train', 'validation', 'test':
    (tmp_path / name).mkdir()
    Image.new('RGB', (20, 20)).save(tmp_path / name / 'a.png')
  Image.new('RGB', (9, 9)).save(tmp_path / split / 'icon.png')
  changes = dict(data__whole=True, data__validation='validation')
  config = tiny.config(tmp_path, **changes)
  said = f'{split}/icon.png is too small to be measured whole'
  if split == 'validation':
    with pytest.raises(InputError, match=said):
      open_data(config, tmp_path / 'run')
  else:  # What only evaluation will need does not keep a run from starting.
    open_data(config, tmp_path / 'run')
    assert said in caplog.messages[-1]


def test_a_missing_test_split_is_said_when_a_run_starts(
  pictures, tmp_path, caplog
):
  config = tiny.config(pictures, data__test='tset')
  open_data(config, tmp_path / 'run')
  assert "the split 'tset' will be missed: " in caplog.messages[-1]


def test_pictures_that_cannot_be_read(tmp_path):
  for split in 'train', 'test':
    (tmp_path / split).mkdir()
    (tmp_path / split / 'a.png').write_text('not a picture')
  with pytest.raises(InputError, match='none of the 1 images .* can be read'):
    train_tiny(tiny.config(tmp_path), tmp_path / 'run')


def test_a_data_set_that_is_not_prepared(pictures, tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  config = tiny.config(pictures, data__name='cifar10')
  with pytest.raises(InputError, match='cifar10 is not prepared .*run `'):
    train_tiny(config, tmp_path / 'run')


def test_a_workdir_of_another_config(tiny_run, copied_run):
  config = {**tiny_run.config, 'seed': 1}
  with pytest.raises(InputError, match='another config: seed is 0 there and 1'):
    train_tiny(config, copied_run)
  assert json.loads((copied_run / 'config.json').read_text())['seed'] == 0
  assert tiny.checkpoints(copied_run) == [4, 6]


def test_a_checkpoint_of_another_model(pictures, copied_run):
  config = tiny.config(pictures, bottleneck__K=32)
  workdir.write_config(str(copied_run), config)
  with pytest.raises(InputError, match=r'another model: .* is \(16,\) there'):
    train_tiny(config, copied_run)
  assert tiny.checkpoints(copied_run) == [4, 6]


def test_a_full_disk(tiny_run, copied_run, monkeypatch):
  def fail(*_, **__):
    raise OSError(errno.ENOSPC, 'No space left on device')

  shutil.rmtree(copied_run / 'checkpoints' / '6')
  config = {**tiny_run.config, 'evaluate_every': 0}
  with monkeypatch.context() as patch:
    patch.setattr(ocp.CheckpointManager, 'save', fail)
    with pytest.raises(InputError, match='the disk is full'):
      train_tiny(config, copied_run)
  assert tiny.checkpoints(copied_run) == [4]
  tiny.assert_identical(
    tiny.on_host(train_tiny(config, copied_run)), tiny_run.state
  )


@pytest.fixture
def run_script(monkeypatch):
  """Runs a main function as a script does; gives the exit code."""

  def run_script(main):
    monkeypatch.setattr(program, 'set_up_logging', lambda: None)
    monkeypatch.setattr(
      program.app, 'run', lambda main, **_: codes.append(main([]))
    )
    codes = []
    program.run(main)
    return codes[0]

  return run_script


@pytest.mark.parametrize(
  ('error', 'code', 'said'),
  [
    (InputError('no such thing:\n  mend it'), 2, 'no such thing: mend it'),
    (TrainingError('pixel is nan'), 1, 'pixel is nan'),
    (OSError(errno.ENOSPC, 'No space left', 'a/b'), 2, 'No space left: a/b'),
    (OSError(errno.EDQUOT, 'Over quota'), 2, 'Over quota: make room'),
    (OSError(errno.EROFS, 'Read-only', 'a/b'), 2, 'Read-only: a/b'),
    (PermissionError(errno.EACCES, 'Denied', 'a/b'), 2, 'Denied: a/b'),
    (FileNotFoundError(errno.ENOENT, 'None', 'a/b'), 2, 'None: a/b'),
    (OSError(errno.EIO, 'Input/output error', 'a'), 2, 'Input/output error: a'),
    (MemoryError(), 1, program.OUT_OF_MEMORY),
    (
      jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 4 GiB\nfor\nbuffers'),
      1,
      program.OUT_OF_MEMORY,
    ),
  ],
)
def test_errors_are_one_line(run_script, capsys, error, code, said):
  def main():
    raise error

  assert run_script(main) == code
  assert capsys.readouterr().err == f'error: {said}\n'


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.EIO, 'Input/output error'),
    jax.errors.JaxRuntimeError('INTERNAL: a defect'),
  ],
)
def test_a_defect_keeps_its_traceback(run_script, error):
  def main():
    raise error

  with pytest.raises(type(error)) as raised:
    run_script(main)
  assert raised.value is error


@pytest.mark.parametrize(
  ('error', 'said'),
  [
    (RuntimeError("no backend 'tpu':\nno chip"), "no backend 'tpu': no chip"),
    (AssertionError(), 'its plugin is not installed'),
  ],
)
def test_a_device_that_is_not_there(
  run_script, capsys, monkeypatch, error, said
):
  def fail():
    raise error

  monkeypatch.setattr(jax, 'devices', fail)
  assert run_script(program.set_up_jax) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: JAX finds no device (JAX_PLATFORMS: cpu)')
  assert said in line


# A script whose main waits; `resumes` says whether the same command goes on.
WAITS = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
from lasers_jax.cli import program
def main():
  try:
    print('ready', flush=True)
    time.sleep(60)
  finally:
    print('cleaned up')
program.run(main, resumes=RESUMES)
"""


def test_ctrl_c_is_one_line_and_no_traceback():
  expected = {
    'False': (-signal.SIGINT, 'ended by SIGINT\n'),
    'True': (program.STOPPED, 'asked to stop: nothing is left to save\n'),
  }
  processes = {
    resumes: subprocess.Popen(
      [sys.executable, '-c', WAITS.replace('RESUMES', resumes)],
      cwd=pathlib.Path(__file__).parents[2],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for resumes in expected
  }
  for resumes, process in processes.items():
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    out, log = process.communicate(timeout=60)
    assert (process.returncode, log) == expected[resumes]
    assert out == 'cleaned up\n'


def test_the_scripts_say_one_line_and_exit_with_2(pictures, tmp_path):
  config, flags = tiny.config(pictures), tiny.train_flags(pictures, tmp_path)
  here = f'process {os.getpid()}'
  with workdir.lock_workdir(str(tmp_path), workdir.Run(config)):
    processes = {
      f'another process is training in {tmp_path} ({here} of ': tiny.start(
        'train.py', *flags
      ),
      '/no/such is no workdir of a run': tiny.start(
        'evaluate.py', '--workdir=/no/such'
      ),
    }
    for said, process in processes.items():
      out, log = process.communicate(timeout=240)
      assert process.returncode == 2, log
      assert 'Traceback' not in log
      *_, line = log.splitlines()
      assert line.startswith(f'error: {said}')
      assert out == ''
