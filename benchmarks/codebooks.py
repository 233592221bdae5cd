"""Trains codebooks by each rule of learning: who collapses, and what it costs.

  python benchmarks/codebooks.py vq --workdir=runs/codebooks \
    --json=codebooks.json --picture=codebooks.png
  python benchmarks/codebooks.py lasers --seeds=0,1,2 ...

The words choose groups of GROUPS. Data, networks, steps and optimizer are those
of configs/cifar10.py. Each row has its results on the test split, and how many
codes single batches of training used, one in --log_every steps: `usage`, the
fraction of all codes, and `perplexity`, of 2,048 sites. The same command goes
on where it was. Time: two minutes a row on one core.
"""

import argparse
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from record import Record
from training import train_and_measure

import lasers_jax as lj
from lasers_jax.core.trees import merge
from lasers_jax.experiment import compare
from lasers_jax.training.metric_lines import read_metrics

NO_REVIVAL = {'revive_every': 0}
BY_LOSS = {'learning': 'loss'}
VQ: dict[str, dict[str, Any]] = {
  'moving averages': NO_REVIVAL,
  'moving averages, revival': {},
  'loss': {**BY_LOSS, **NO_REVIVAL},
  'loss, revival': BY_LOSS,
  'loss, affine': {**BY_LOSS, 'affine': 2.0, **NO_REVIVAL},
  'loss, synchronized': {**BY_LOSS, 'synchronized': 0.2, **NO_REVIVAL},
  'alternated': {'learning': 'alternated', **NO_REVIVAL},
  'moving averages, K-means start': {'start': 'kmeans', **NO_REVIVAL},
  'moving averages, Sinkhorn': {'assignment': 'sinkhorn', **NO_REVIVAL},
  'moving averages, rotation': {'gradient': 'rotation', **NO_REVIVAL},
  'loss, affine, revival': {**BY_LOSS, 'affine': 2.0},
  'alternated, revival': {'learning': 'alternated'},
  'loss, synchronized, revival': {**BY_LOSS, 'synchronized': 0.2},
  'moving averages, rotation, revival': {'gradient': 'rotation'},
  'moving averages, cosine': {'distance': 'cosine', **NO_REVIVAL},
}


class Group(NamedTuple):
  """Bottlenecks, by name and rule, that are trained at the same rates."""

  rules: dict[tuple[str, str], dict[str, Any]]
  rates: tuple[float, ...]  # bits per pixel


GROUPS = {
  'vq': Group({('vq', rule): x for rule, x in VQ.items()}, (0.625,)),
  'others': Group(
    {(name, ''): {} for name in ('simvq', 'ibq', 'cvq', 'hypervq', 'lasers')},
    (0.625,),
  ),
  'lasers': Group(
    {('lasers', x): {'learning': x} for x in ('gradient', 'online', 'fixed')},
    (0.5625, 2.0),
  ),
}


class Run(NamedTuple):
  """A model to train."""

  bottleneck: str
  rule: str
  rate: float
  seed: int
  path: str
  config: dict
  fields: dict  # of the bottleneck, which meet the rate and make the rule

  @property
  def name(self) -> str:
    words = f'{self.bottleneck} {self.rule}'.strip()
    return f'{words}, {self.rate:g} bits per pixel, seed {self.seed}'


def plan(given: argparse.Namespace) -> Iterator[Run]:
  for seed in given.seeds:
    config = lj.config(
      'cifar10',
      steps=given.steps,
      seed=seed,
      evaluate_every=0,
      checkpoint_every=given.steps,
      log_every=given.log_every,
    )
    for group in given.groups:
      for (name, rule), fields in GROUPS[group].rules.items():
        folder = f'{name} {rule} {seed}'.replace(',', '').replace(' ', '-')
        path = os.path.join(given.workdir, folder)
        for entry in compare.plan(config, [name], GROUPS[group].rates, path):
          yield of_entry(entry, rule, seed, fields)


def of_entry(entry: compare.Entry, rule: str, seed: int, fields: dict) -> Run:
  weights = {'codebook': 1.0} if fields.get('learning') == 'loss' else {}
  over = {'bottleneck': fields, 'loss': {'weights': weights}}
  chosen = {**entry.fields, **fields}
  config = merge(entry.config, over)
  return Run(entry.name, rule, entry.rate, seed, entry.path, config, chosen)


def make(run: Run) -> dict[str, Any]:
  """Trains a model; returns its results, and how many codes were in use."""
  found = train_and_measure(run.config, run.path)
  lines = read_metrics(run.path)
  return {
    'bottleneck': run.bottleneck,
    'rule': run.rule,
    'asked_bits_per_pixel': run.rate,
    'seed': run.seed,
    'settings': run.fields,
    'results': found,
    'training': {
      key: [line[key] for line in lines if 'usage' in line]
      for key in ('step', 'usage', 'perplexity')
    },
  }


def draw(rows: list[dict], path: str) -> None:
  """Draws perplexity over training: the rules of vq, and other bottlenecks."""
  panels: dict[str, list[dict]] = {
    'vq by moving averages': [],
    'vq by a loss, or in turns with the decoder': [],
    'other bottlenecks': [],
  }
  averages, losses, others = panels.values()
  for row in rows:
    by_averages = row['rule'].startswith('moving')
    of_vq = averages if by_averages else losses
    (of_vq if row['bottleneck'] == 'vq' else others).append(row)
  panels = {title: drawn for title, drawn in panels.items() if drawn}
  width = 13 * len(panels) / 3
  figure = Figure(figsize=(width, 4.5), layout='constrained')
  all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  for axes, (title, drawn) in zip(all_axes, panels.items(), strict=True):
    for row in drawn:
      curve, name = row['training'], row['bottleneck']
      label = row['rule'] if name == 'vq' else f'{name} {row["rule"]}'.strip()
      style = '--' if 'revival' in row['rule'] else '-'
      axes.plot(curve['step'], curve['perplexity'], style, label=label)
    axes.set(xlabel='step of training', title=title, yscale='log')
    axes.grid(alpha=0.3)
    axes.legend(fontsize='x-small', loc='lower right')
  all_axes[0].set_ylabel('perplexity of the codes of a batch')
  figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add('groups', nargs='+', choices=[*GROUPS])
  add('--workdir', required=True, help='folder of the models')
  add('--json', default='', help='file of the results')
  add('--picture', help='a PNG file to draw')
  add('--seeds', default='0')
  add('--steps', type=int, default=1000)
  add('--log_every', type=int, default=25)
  given = parser.parse_args()
  given.seeds = [int(x) for x in given.seeds.split(',')]
  return given


def main() -> None:
  given = parse()
  record = Record(
    given.json, __doc__, steps=given.steps, log_every=given.log_every
  )
  for run in plan(given):
    if run.name not in record:
      record.add(run.name, **make(run))
      psnr = record.rows[run.name]['results']['psnr']['mean']
      print(f'{run.name}: PSNR {psnr:.2f} dB', flush=True)
  record.finish()
  if given.picture:
    draw([*record.rows.values()], given.picture)


if __name__ == '__main__':
  main()
