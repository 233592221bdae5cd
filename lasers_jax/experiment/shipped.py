"""The models that come with the package: what they are, and where.

Each is the folder of an exported model, which `benchmarks/ship_model.py` writes
from the workdir of a run.
"""

import os
from typing import Any, NamedTuple

from lasers_jax.errors import InputError
from lasers_jax.experiment import exported

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'models')


class About(NamedTuple):
  """What the files of a model do not say of it.

  Attributes:
    summary: one line.
    licence: of the weights, and of the data that they were trained on.
    command: by which they were trained.
    fitted: what comes with it, fitted to its training images: 'codec', a prior
      of `lasers_jax.draw`, or nothing.
    reader: what reads it: `load`, or of a prior over maps `load_prior`.
  """

  summary: str
  licence: str
  command: str
  fitted: str = ''
  reader: str = 'load'


_MNIST = (
  'Apache License 2.0, as the project. Trained on 55,000 digits of MNIST '
  '(Y. LeCun and C. Cortes; CC BY-SA 3.0 according to '
  'https://keras.io/api/datasets/mnist).'
)
_CIFAR10 = (
  'Apache License 2.0, as the project. Trained on 49,000 images of CIFAR-10 '
  '(A. Krizhevsky, "Learning multiple layers of features from tiny images", '
  '2009), which come with no licence: for research.'
)

MODELS = {
  'photo-codec': About(
    summary='photographs to small files and back: priced integers, f = 16',
    licence='Apache License 2.0, as the project. Trained on 1,536 photographs '
    'of clothing-dataset-small, which "can be freely used for any purpose": '
    'https://github.com/alexeygrigorev/clothing-dataset-small, and on squares '
    'of 54 photographs in the Debian packages lomiri-wallpapers, '
    'mate-backgrounds, plasma-workspace-wallpapers and palapeli-data (CC BY, '
    'CC BY-SA, GPL) and in the wheels of scikit-image and scikit-learn.',
    command='lasers-jax train --config=codec:lasers --workdir=runs/codec '
    '--config.data.name=folder:images --config.evaluate_every=0 '
    '--config.bottleneck.limit=127',
    fitted='codec',
  ),
  'mnist-ae': About(
    summary='digits to 32 numbers and back; the prior pmfs draws new ones',
    licence=_MNIST,
    command='lasers-jax train --config=mnist:ae --workdir=runs/mnist/ae '
    '--config.steps=4000',
    fitted='pmfs',
  ),
  'cifar10-vq': About(
    summary='images of 32 pixels to 8x8 tokens of 512 and back, 0.5625 bits a '
    'pixel',
    licence=_CIFAR10,
    command='lasers-jax train --config=cifar10:vq --workdir=runs/cifar10/vq',
    fitted='codec',
  ),
  'cifar10-lasers': About(
    summary='images of 32 pixels to 8x8 sparse codes and back, five of 512 '
    'atoms each: the setting of the paper',
    licence=_CIFAR10,
    command='lasers-jax train --config=cifar10:lasers '
    '--workdir=runs/cifar10/lasers',
    fitted='codec',
  ),
  'mnist-vq': About(
    summary='digits to 7x7 tokens of 64 and back; mnist-ar draws new ones',
    licence=_MNIST,
    command='lasers-jax train --config=cifar10:vq --workdir=runs/mnist/vq '
    '--config.data.name=mnist --config.data.side=28 --config.data.flip=false '
    "'--config.data.train=train[:55000]' "
    "'--config.data.validation=train[55000:]' --config.bottleneck.K=64 "
    '--config.steps=2000',
    fitted='codec',
  ),
  'mnist-ar': About(
    summary='a prior over the tokens of mnist-vq: new digits of a class',
    licence=_MNIST,
    command='lasers-jax prior --config=prior:ar --model=mnist-vq '
    '--workdir=runs/mnist/ar --config.steps=2000 '
    '--config.optimizer.warmup=100',
    reader='load_prior',
  ),
}


def models() -> dict[str, dict[str, Any]]:
  """Returns the models that come with the package, by the names `load` takes.

  Returns:
    Of each: `summary`, `licence`, `command`, `fitted` and `reader` as text;
    `bytes` of
    all its files; `weights`, the hash of its arrays; `codecs`, the files of the
    choices that it can encode by without training images.
  """
  return {name: _describe(name, about) for name, about in MODELS.items()}


def _describe(name: str, about: About) -> dict[str, Any]:
  path = folder(name)
  files = [
    os.path.join(place, x) for place, _, names in os.walk(path) for x in names
  ]
  weights = exported.metadata(os.path.join(path, exported.WEIGHTS))['weights']
  return {
    **about._asdict(),
    'bytes': sum(map(os.path.getsize, files)),
    'weights': weights,
    'codecs': sorted(x for x in os.listdir(path) if x.startswith('codec')),
  }


def folder(name: str) -> str:
  """Returns the folder of a model of the package."""
  return os.path.join(_FOLDER, name)


def named(path: str) -> str:
  """Returns the name of a model of the package for its folder, or the path."""
  name = os.path.basename(path)
  return name if name in MODELS and path == folder(name) else path


def own_folder(path: str, output: str | None) -> str:
  """Returns where results of a model go: a folder that was asked for, or its.

  Raises:
    InputError: the model comes with the package, and none was asked for.
  """
  if output is None and named(path) != path:
    raise InputError(
      f'{named(path)} comes with the package: say where results go '
      '(--output=FOLDER), or export it to a folder of yours and take that'
    )
  return output or path
