"""A tiny trained model, and one finished run of a prior over its codes."""

import json
import shutil
import types

import pytest

from lasers_jax.experiment.priors import loop
from tests import tiny


def config(**changes) -> dict:
  """A prior that trains in seconds, with changes: section__key=value."""
  result = {
    'steps': 4,
    'batch_size': 8,
    'prior': {'name': 'ar', 'width': 16, 'layers': 1, 'heads': 2},
    'optimizer': {'learning_rate': 1e-2, 'final': 1.0, 'ema': 0.9},
    'evaluation': {'batch_size': 8, 'pictures': 2},
    'log_every': 1,
    'checkpoint_every': 2,
    'tensorboard': False,
  }
  for path, value in changes.items():
    *sections, key = path.split('__')
    inner = result
    for section in sections:
      inner = inner.setdefault(section, {})
    inner[key] = value
  return result


def labelled(pictures, folder):
  """Copies pictures into folders of two classes, those of even number first."""
  for picture in sorted(pictures.glob('*/*.png')):
    kind = ('cats', 'dogs')[int(picture.stem) % 2]
    target = folder / picture.parent.name / kind
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(picture, target)
  return folder


@pytest.fixture(scope='session')
def model(tiny_run, pictures, tmp_path_factory):
  """The workdir of a trained model whose images have labels."""
  home = tmp_path_factory.mktemp('model')
  folder = labelled(pictures, home / 'pictures')
  path = home / 'run'
  shutil.copytree(tiny_run.workdir, path)
  file = path / 'config.json'
  found = json.loads(file.read_text())
  found['data']['name'] = f'folder:{folder}'
  file.write_text(json.dumps(found))
  return path


@pytest.fixture(scope='session')
def run(model, tmp_path_factory):
  """One finished run: config, workdir, and the last state on the host."""
  workdir = tmp_path_factory.mktemp('prior') / 'run'
  given = config(evaluate_every=4)
  state = loop.train_prior(given, str(model), str(workdir))
  return types.SimpleNamespace(
    config=given, workdir=workdir, state=tiny.on_host(state)
  )
