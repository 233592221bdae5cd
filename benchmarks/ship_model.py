"""Writes a trained model as one that comes with the package.

  python benchmarks/ship_model.py mnist-ae runs/mnist/ae
  python benchmarks/ship_model.py photo-codec runs/codec \\
    --step=0.225 --others=0.12,0.4

Reads a workdir and writes lasers_jax/models/NAME, where an earlier model is
replaced: weights rounded to float16, their results, and what the table in
experiment/shipped.py says comes with them, fitted to the training images of the
workdir. Of a codec that is the states by which it encodes without these: with
and without a context model, and with one at other steps of a price, up to some
minutes each. Of a prior of one vector an image it is its state. A prior over
maps is trained over a model that is there already.
"""

import argparse
import os
import pathlib
import shutil
import tempfile

from lasers_jax.experiment import generate, shipped
from lasers_jax.experiment.codecs import Choice
from lasers_jax.experiment.evaluate import evaluate
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.priors.model import load_prior

DATA = 'folder:images'  # in place of a path of this machine


def export(trained: TrainedModel, folder: str, licence: str) -> None:
  """Writes the model with float16 weights, and the results of these."""
  unmeasured = f'{folder}-unmeasured'
  trained.export(unmeasured, half=True, licence=licence)
  evaluate(unmeasured, output=unmeasured)
  load(unmeasured).export(folder, half=True, licence=licence)


def fit_prior(folder: str, name: str) -> None:
  """Writes the state of a prior of an exported model, and no pictures."""
  generate.sample_all([load(folder)], [name])
  for path in pathlib.Path(folder, 'samples').iterdir():
    if path.suffix != '.npz':
      path.unlink()


def fit_codec(folder: str, steps: list[float]) -> None:
  """Writes the states of the codec of an exported model."""
  model = load(folder)
  choices = [Choice(), Choice(context=True)]
  choices += [Choice({'step': step}, context=True) for step in steps]
  for choice in choices:
    print(f'fitting {choice.file}', flush=True)
    model.encoder(choice)


def write(given: argparse.Namespace, folder: str) -> None:
  """Writes the model into a folder."""
  about = shipped.MODELS[given.name]
  if about.reader == 'load_prior':
    prior = load_prior(given.workdir)
    prior.export(folder, half=True, licence=about.licence)
    return
  trained = load(given.workdir)
  if given.step:
    trained = trained.with_config(bottleneck={'step': given.step})
  export(trained, folder, about.licence)
  if about.fitted == 'codec':
    fit_codec(folder, given.others)
  elif about.fitted:
    fit_prior(folder, about.fitted)
  data = trained.config['data']['name']
  for name in ('config.json', 'README.md') if '/' in data else ():
    path = pathlib.Path(folder, name)
    text = path.read_text(encoding='utf-8')
    path.write_text(text.replace(data, DATA), encoding='utf-8')


def steps(text: str) -> list[float]:
  return [float(x) for x in text.split(',')]


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('name', choices=shipped.MODELS)
  parser.add_argument('workdir')
  parser.add_argument('--step', type=float, help='of the price, as it is then')
  parser.add_argument('--others', type=steps, default=[], help='of more states')
  given = parser.parse_args()
  target = shipped.folder(given.name)
  with tempfile.TemporaryDirectory() as scratch:
    folder = os.path.join(scratch, given.name)
    write(given, folder)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns('.*'))


if __name__ == '__main__':
  main()
