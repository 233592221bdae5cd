"""Trains restorations through bottlenecks at equal bits, and measures them.

  python benchmarks/restoration_models.py cifar10 --bits_per_pixel=2,0.5625 \
    --workdir=runs/restorations --json=restorations.json

For each rate: the copy of images without damage, and by protocol 'code'
super-resolution x2 and x4 and inpainting of the centre and of strokes; each
through every bottleneck that has settings of this rate. Data, steps, network,
seed and optimizer are the same for all; `none`, continuous, is trained once.
Methods without a model are measured last, on the same images. The same command
goes on where it was. --picture draws the first test images by all. Time: a
minute a model of CIFAR-10 on one core.
"""

import argparse
import os

import restorations
from record import Record
from training import train_and_measure

import lasers_jax as lj
from lasers_jax.core.images import save_png
from lasers_jax.evaluation.baselines import restored_simply
from lasers_jax.experiment import compare
from lasers_jax.experiment.settings import from_config
from lasers_jax.report.comparison import side_by_side

CLEAN = 'clean'
BEST = 'lanczos', 'biharmonic'  # of super-resolution and of inpainting
DRAWN = 3  # images of each task
TASKS = CLEAN, 'superres 2', 'superres 4', 'inpaint centre', 'inpaint strokes'
Run = tuple[str, dict | None, compare.Entry]  # task, its section, the model


def section_of(task: str) -> dict | None:
  """Returns the section `degradation` of a task; None where nothing is."""
  return None if task == CLEAN else restorations.SECTIONS[task]


def plan(given: argparse.Namespace) -> list[Run]:
  """Lists the models to train, in the order in which they are trained."""
  runs: dict[str, Run] = {}
  for rate in given.bits_per_pixel:
    for task in given.tasks:
      config, folder = config_of(given, task), os.path.join(given.workdir, task)
      for x in compare.plan(config, given.bottlenecks, [rate], folder):
        rounded = x.name == 'none' and x.rate is not None
        if x.config and not rounded:
          runs.setdefault(x.path, (task, section_of(task), x))
  return [*runs.values()]


def config_of(given: argparse.Namespace, task: str) -> dict:
  """Returns the config of a task: that of CIFAR-10, on the data asked for."""
  section = dict(section_of(task) or {})
  own = (
    {}
    if given.data == 'cifar10'
    else {
      'train': 'train',
      'validation': 'validation',
      'resize': given.side,
    }
  )
  data = {'name': os.path.expanduser(given.data), 'test': given.split, **own}
  return lj.config(
    'cifar10',
    degradation=section.pop('name', None),
    **{f'degradation__{key}': x for key, x in section.items()},
    **{f'data__{key}': x for key, x in data.items()},
    data__side=given.side,
    network__f=given.f,
    network__channels=given.channels,
    network__residual_channels=given.channels // 4,
    steps=given.steps,
    batch_size=given.batch_size,
    evaluate_every=0,
    checkpoint_every=given.steps,
  )


def make(entry: compare.Entry) -> dict:
  """Trains a model; returns its results, and keeps its first images."""
  found = train_and_measure(entry.config, entry.path)
  images = compare.reconstruct(entry.path)
  compare.write_reconstructions(entry.path, images)
  return found


def measure_methods(given: argparse.Namespace, record: Record) -> None:
  """Measures what needs no model, on the same images."""
  for rate in given.bits_per_pixel:
    for task in (x for x in given.tasks if x != CLEAN):
      section = restorations.SECTIONS[task]
      resized = section['name'] == 'superres'
      prefix = f'{task} {rate:g}' if resized else task
      if f'{prefix} input' in record:
        continue
      data = from_config(config_of(given, task)).data
      found = restorations.measure(section, data, rate if resized else None)
      for method, values in reversed(found.items()):
        record.add(
          f'{prefix} {method}',
          task=task,
          asked_bits_per_pixel=rate if resized else None,
          method=method,
          results=values,
        )


def draw(runs: list[Run], path: str) -> None:
  """Draws the first images of each task, side by side: a row each model.

  Above the models stand the originals, the input, and the best method without
  a model; below, those models alone that all tasks have.
  """
  shown: dict[str, dict[str, list]] = {}
  for task, section, entry in runs:
    if section and os.path.exists(pictures_of(entry)):
      rows = shown.setdefault(task, {})
      if not rows:
        experiment = from_config(entry.config)
        rows['original'] = compare.first_images(experiment, entry.path)
        simply = restored_simply(experiment.degradation, rows['original'])
        rows |= {x: simply[x] for x in simply if x in ('input', *BEST)}
      made = compare.read_reconstructions(entry.path)
      rows[os.path.basename(entry.path)] = made
  merged: dict[str, list] = {}
  for rows in shown.values():
    for name, images in rows.items():
      row = 'best method' if name in BEST else name
      merged[row] = merged.get(row, []) + images[:DRAWN]
  originals = merged.pop('original')
  whole = {k: x for k, x in merged.items() if len(x) == len(originals)}
  save_png(path, side_by_side(list(whole), list(whole.values()), originals))


def pictures_of(entry: compare.Entry) -> str:
  return os.path.join(entry.path, compare.RECONSTRUCTIONS)


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add('data', help='as data.name of a config')
  add('--workdir', required=True, help='folder of the models')
  add('--json', default='', help='file of the results')
  add('--picture', help='a PNG file to draw')
  add('--tasks', default=','.join(TASKS))
  add('--bottlenecks', default='lasers,vq,residual,fsq,none')
  add('--bits_per_pixel', default='2,0.5625')
  add('--side', type=int, default=32, help='of an image in pixels')
  add('--split', default='test', help='to measure on')
  add('--f', type=int, default=4, help='down-sampling factor of the encoder')
  add('--channels', type=int, default=64, help='of the networks')
  add('--steps', type=int, default=1000)
  add('--batch_size', type=int, default=16)
  given = parser.parse_args()
  given.tasks = given.tasks.split(',')
  given.bottlenecks = given.bottlenecks.split(',')
  given.bits_per_pixel = [float(x) for x in given.bits_per_pixel.split(',')]
  return given


def main() -> None:
  given = parse()
  runs = plan(given)
  record = Record(given.json, __doc__, **vars(given))
  for task, section, entry in runs:
    name = f'{task} {os.path.basename(entry.path)}'
    if name not in record:
      results = make(entry)
      record.add(
        name,
        task=task,
        degradation=section,
        bottleneck=entry.name,
        asked_bits_per_pixel=entry.rate,
        settings=entry.fields,
        results=results,
      )
      print(f'{name}: PSNR {results["psnr"]["mean"]:.2f} dB', flush=True)
  measure_methods(given, record)
  record.finish()
  if given.picture:
    draw(runs, given.picture)


if __name__ == '__main__':
  main()
