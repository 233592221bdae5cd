"""Writes a trained codec as a model that comes with the package.

  python benchmarks/ship_model.py runs/codec
  python benchmarks/ship_model.py runs/codec --name=photo-codec \\
    --step=0.225 --others=0.12,0.4

Reads a workdir of configs/codec.py and writes lasers_jax/models/NAME, where an
earlier model is replaced: weights rounded to float16, and the states by which
it encodes without training images: at the step that it is to have, with and
without a context model, and with one at other steps. These are fitted to the
training images of the workdir, some minutes each; they and the weights go
together. What the files do not say (summary, licence, command) is in
experiment/shipped.py.
"""

import argparse
import os
import pathlib
import shutil
import tempfile

from lasers_jax.experiment import shipped
from lasers_jax.experiment.codecs import Choice
from lasers_jax.experiment.loading import load

DATA = 'folder:images'  # in place of a path of this machine


def fit(folder: str, steps: list[float]) -> None:
  """Writes the states of the codec of an exported model."""
  model = load(folder)
  choices = [Choice(), Choice(context=True)]
  choices += [Choice({'step': step}, context=True) for step in steps]
  for choice in choices:
    print(f'fitting {choice.file}', flush=True)
    model.encoder(choice)


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('workdir')
  parser.add_argument('--name', default='photo-codec', choices=shipped.MODELS)
  parser.add_argument('--step', type=float, default=0.225)
  parser.add_argument('--others', default='0.12,0.4')
  given = parser.parse_args()
  target, about = shipped.folder(given.name), shipped.MODELS[given.name]
  trained = load(given.workdir)
  trained = trained.with_config(bottleneck={'step': given.step})
  with tempfile.TemporaryDirectory() as scratch:
    folder = os.path.join(scratch, given.name)
    trained.export(folder, half=True, licence=about.licence)
    fit(folder, [float(x) for x in given.others.split(',')])
    for name in 'config.json', 'README.md':
      path = pathlib.Path(folder, name)
      text = path.read_text(encoding='utf-8')
      data = trained.config['data']['name']
      path.write_text(text.replace(data, DATA), encoding='utf-8')
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns('.*'))
  print(shipped.models()[given.name])


if __name__ == '__main__':
  main()
