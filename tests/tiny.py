"""A run so small that it trains in seconds, and its pictures.

python train.py --config=tests/tiny.py:FOLDER --workdir=WORKDIR
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

SIDE = 16
ENDLESS = 1_000_000  # steps of a run that is going to be stopped
TRAIN, TEST = 12, 10  # pictures; no batch of 8 divides the ten


def get_config(folder: str) -> ConfigDict:
  config = ConfigDict()
  config.seed = 0
  config.steps = 6
  config.batch_size = 8
  config.data = ConfigDict(
    dict(
      name=f'folder:{folder}',
      side=SIDE,
      train='train',
      validation='test',
      test='test',
      workers=0,
    )
  )
  # Few layers compile fast; 32 channels are enough to be split along `fsdp`.
  config.network = ConfigDict(
    dict(name='vqvae', D=4, f=2, channels=32, residual_blocks=0)
  )
  config.bottleneck = ConfigDict(
    dict(name='lasers', K=16, S=2, learning='gradient', revive_every=3)
  )
  config.loss = ConfigDict(
    dict(pixel='mse', weights=dict(pixel=10.0, dictionary=1.0, commitment=0.25))
  )
  # With final = 1 the learning rate does not depend on `steps`, so that runs
  # of different lengths can be compared.
  config.optimizer = ConfigDict(
    dict(learning_rate=1e-3, warmup=2, final=1.0, clip=1.0, ema=0.9)
  )
  config.mesh = ConfigDict(dict(data=-1, fsdp=1, model=1))
  config.evaluation = ConfigDict(dict(batch_size=8, pictures=2))
  config.log_every = 1
  config.evaluate_every = 0
  config.checkpoint_every = 2
  config.checkpoints_kept = 2
  config.tensorboard = False
  return config


def config(folder, **changes) -> dict:
  """The config as dictionaries, with changes: section__key=value."""
  result = get_config(str(folder)).to_dict()
  for path, value in changes.items():
    *sections, key = path.split('__')
    inner = result
    for section in sections:
      inner = inner[section]
    inner[key] = value
  return result


def make_pictures(folder: pathlib.Path) -> pathlib.Path:
  """Writes smooth colour pictures, 20 pixels a side, of two splits."""
  rng = np.random.default_rng(0)
  for split, count in ('train', TRAIN), ('test', TEST):
    (folder / split).mkdir(parents=True)
    for i in range(count):
      coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
      picture = Image.fromarray(coarse).resize((25, 20), Image.BICUBIC)
      picture.save(folder / split / f'{i:02}.png')
  return folder


def images(count: int, seed: int = 0) -> np.ndarray:
  """A batch as the pipeline gives it: uint8 [count, SIDE, SIDE, 3]."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
  return coarse.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)


def copied(state):
  """A state with its arrays on the host, its key still a key."""
  key = np.asarray(jax.random.key_data(state.key))
  state = jax.device_get(state.replace(key=None))
  return state.replace(key=jax.random.wrap_key_data(key))


def on_host(state) -> dict[str, np.ndarray]:
  """The arrays of a state by their paths, the key as integers."""
  state = state.replace(key=jax.random.key_data(state.key))
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


def assert_identical(a: dict, b: dict) -> None:
  """Two states of `on_host` are the same to the last bit."""
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def metrics(workdir) -> list[dict]:
  """The lines of metrics.jsonl."""
  text = (pathlib.Path(workdir) / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def losses(workdir) -> list[float]:
  """The loss of each step of training."""
  return [line['loss'] for line in metrics(workdir) if 'loss' in line]


def checkpoints(workdir) -> list[int]:
  """The steps that have a checkpoint."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  names = [path.name for path in folder.glob('*') if path.name.isdigit()]
  return sorted(map(int, names))


def start(script: str, *flags: str, devices: int = 8, **env: str):
  """Starts a script as a process of its own, with so many devices."""
  root = pathlib.Path(__file__).parent.parent
  return subprocess.Popen(
    [sys.executable, str(root / script), *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'JAX_NUM_CPU_DEVICES': str(devices),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'TF_CPP_MIN_LOG_LEVEL': '3',
      **env,
    },
  )


def train_flags(folder, workdir, **changes) -> list[str]:
  """The flags of train.py for a tiny run, with section__key=value changes."""
  here = pathlib.Path(__file__).resolve()
  overrides = [
    f'--config.{path.replace("__", ".")}={value}'
    for path, value in changes.items()
  ]
  return [f'--config={here}:{folder}', f'--workdir={workdir}', *overrides]


def wait_for(condition, process, seconds: float = 240):
  """Waits until a condition holds; fails where the process ends first."""
  end = time.time() + seconds
  while not condition():
    if process.poll() is not None:
      raise AssertionError(f'ended early: {process.communicate()[1]}')
    assert time.time() < end, 'waited too long'
    time.sleep(0.05)
