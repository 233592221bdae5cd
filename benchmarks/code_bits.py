"""Measures what each code costs once a model has learned it.

  python benchmarks/code_bits.py --runs=runs/code-bits runs/comparison/vq-0.5625

For each trained model (a workdir or an export), the bits per pixel of the codes
of its test images, by ever better models of them, all fitted to training
images:

  fixed      as many bits for each code
  table      a table of counts for each plane of events
  position   a table for each plane and site
  context    the codec's context model of four neighbours (ideal lengths)
  ar         an autoregressive prior, without the class
  ar_class   the same, given the class; ar_class_paid has log2(classes) / pixels
             more

The prior is trained in RUNS/NAME-ORDER and goes on where it stopped. Weights of
tables and networks are not counted. Rows that the file has are kept.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
import record

import lasers_jax as lj
from lasers_jax.cli import config_file
from lasers_jax.codec.coder import FittedCoder
from lasers_jax.core import storage
from lasers_jax.experiment.codecs import Choice
from lasers_jax.experiment.priors import latents, settings
from lasers_jax.experiment.priors.loop import train_prior
from lasers_jax.experiment.priors.measuring import measure
from lasers_jax.experiment.priors.model import TrainedPrior, load_prior

CONTEXT_IMAGES = 1_000  # of the test split: the context model is slow


class Ideal(FittedCoder):
  """Adds up -log2 of the probability of each integer."""

  bits = 0.0

  def _integers(self, values, n, weights):
    shares = np.asarray(weights, np.float64)
    self.bits -= np.log2(shares[values] / shares.sum()).sum()
    return values

  def _each(self, values, shares):
    found = np.take_along_axis(shares, values[:, None], axis=1)
    self.bits -= np.log2(found).sum(dtype=np.float64)
    return values


def table_bits(train: np.ndarray, test: np.ndarray, by_site: bool) -> float:
  """Returns bits an image of tables of counts, each count plus one half."""
  shape = train.shape[1:3] if by_site else (1, 1)
  total = 0.0
  for plane in range(train.shape[-1]):
    size = max(int(x[..., plane].max()) for x in (train, test)) + 1
    sites = np.arange(math.prod(shape)).reshape(shape)
    keys = [
      x[..., plane].astype(np.int64) + size * sites for x in (train, test)
    ]
    counts = np.bincount(keys[0].ravel(), minlength=size * sites.size) + 0.5
    counts = counts.reshape(sites.size, size)
    bits = np.log2(counts.sum(axis=1, keepdims=True) / counts).ravel()
    total += bits[keys[1]].sum() / len(test)
  return total


def context_bits(model: Any, images: np.ndarray) -> float:
  """Returns ideal bits an image of the codec's context model."""
  codec = model.encoder(Choice(context=True))
  coder = Ideal(codec.state.tables)
  sites = model.module.sites(*images.shape[1:3])
  for image in images:
    codec.model.bottleneck.transfer(coder, sites, codec.codes_of(image))
  return coder.bits / len(images)


def train(model: str, words: Any, path: str) -> TrainedPrior:
  """Trains the prior of a model, or goes on with it."""
  config = config_file.load('prior:ar', settings.with_defaults).to_dict()
  changes = {'steps': words.steps, 'order': words.order, 'seed': words.seed}
  config |= {**changes, 'checkpoint_every': 200, 'tensorboard': False}
  config['optimizer']['warmup'] = words.steps // 20
  train_prior(config, model, path)
  return load_prior(path)


def measure_row(path: str, words: Any) -> dict[str, Any]:
  """Returns the row of a model."""
  model = lj.load(path)
  name = os.path.basename(os.path.normpath(path))
  run = os.path.join(words.runs, f'{name}-{words.order}')
  prior = train(path, words, run)
  splits, pixels = model.experiment.data, model.experiment.data.side**2
  coded = {
    split: latents.code_split(
      prior.view, model.open_split(split), run, mirrored
    )
    for split, mirrored in ((splits.train, splits.flip), (splits.test, False))
  }
  test = coded[splits.test]
  events = [coded[x]['view'] for x in (splits.train, splits.test)]
  seen = {  # does it know them by heart?
    x: y[:2_000] for x, y in coded[splits.train].items()
  }
  found, known = (
    measure(prior.prior, prior.variables, rows, prior.mesh, pixels)
    for rows in (test, seen)
  )
  bits = found['bits_per_pixel']
  source = model.open_split(splits.test)
  some = [source[i]['image'] for i in range(min(CONTEXT_IMAGES, len(source)))]
  results = storage.read_text(os.path.join(path, 'results.json'))
  return {
    'model': name,
    'order': words.order,
    'weights': model.weights,
    'psnr': json.loads(results)['psnr']['mean'],
    'fixed': model.experiment.bits_per_pixel,
    'table': table_bits(*events, by_site=False) / pixels,
    'position': table_bits(*events, by_site=True) / pixels,
    'context': context_bits(model, np.stack(some)) / pixels,
    'ar': found['unconditional'],
    'ar_class': bits['given_class']['mean'],
    'ar_class_paid': bits['with_class'],
    'by_plane': bits['by_plane'],
    'seen': known['bits_per_pixel']['given_class']['mean'],
    'steps': prior.step,
    'prior': prior.weights,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('models', nargs='+')
  parser.add_argument('--runs', required=True)
  parser.add_argument('--output', default='docs/results/code-bits.json')
  parser.add_argument('--steps', type=int, default=1_000)
  parser.add_argument('--order', default='energy')
  parser.add_argument('--seed', type=int, default=0)
  words = parser.parse_args()
  kept = record.Record(words.output, str(__doc__), prior='prior:ar')
  for path in words.models:
    name = os.path.basename(os.path.normpath(path))
    key = f'{name} {words.order} {words.steps} steps seed {words.seed}'
    if key not in kept:
      kept.add(key, **measure_row(path, words))
  kept.finish()


if __name__ == '__main__':
  main()
