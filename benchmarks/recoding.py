"""Codes the latents of a frozen tokenizer by every kind of bottleneck.

  python benchmarks/recoding.py --tokenizer=taef2_encoder.pth --patch=1 \\
    --train=folder:clothing128 --test=kodak --cache=runs/latents \\
    --output=docs/results/recoding-taef2.json

Latents of training images are coded once and kept in --cache; each bottleneck
learns on them by the step of the trainer with loss.pixel='latent', and codes
the middle 256 x 256 pixels of each test image. A row has

  fixed      bits per pixel of fixed length
  file       bits per pixel of files with tables of counts of the codes of
             training images, and no context model
  nmse       the error of standardized latents over their variance about the
             mean of the test images
  psnr, ssim, lpips_alex
             of what the tokenizer's decoder makes of the coded latents

The row `continuous` is the ceiling: latents that were not coded. Rows `JPEG`,
`WEBP` and `AVIF` are files of Pillow. Rows that the file has are kept.
"""

import argparse
import functools
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
import record

import lasers_jax as lj
from lasers_jax.codec import codec
from lasers_jax.core.trees import merge
from lasers_jax.data import open_source
from lasers_jax.data.pipeline import center_crop
from lasers_jax.decoders import Plain
from lasers_jax.evaluation import rate_distortion
from lasers_jax.experiment.presets import bottlenecks
from lasers_jax.experiment.settings import build_model
from lasers_jax.metrics.registry import Metrics, load_metrics
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.training.objective import LossSettings, Objective
from lasers_jax.training.optimizer import OptimizerSettings, make_optimizer
from lasers_jax.training.state import create_train_state, evaluation_variables
from lasers_jax.training.step import make_train_step

SIDE = 256  # of the middles of test images
STARTED_FROM = 64  # maps of latents, from which bottlenecks start
TABLES_FROM = 128  # maps of latents whose codes are counted
SPARSE = {'pursuit': 'rounded', 'coefficient_bits': 2}  # names say others


def settings(sites_of: int) -> dict[str, tuple[str, dict[str, Any]]]:
  """Returns names of rows, bottlenecks and their fields.

  Args:
    sites_of: D, the width of what is coded at once.
  """
  found: dict[str, tuple[str, dict[str, Any]]] = {'vq 1024': ('vq', {})}
  for s in (1, 2, 4, 8):
    found[f'lasers S={s}'] = ('lasers', {'S': s, **SPARSE})
  for s in (2, 4, 8):
    one = {'S': s, **SPARSE, 'coefficient_bits': 1}
    found[f'lasers S={s}, 1 bit'] = ('lasers', one)
  for depth in (2, 4, 8):
    found[f'residual {depth}'] = ('residual-vq', {'depth': depth})
  for groups in (2, 4, 8):
    found[f'product {groups}'] = ('product-vq', {'groups': groups})
  for scalars in (5, 10):
    found[f'fsq 8^{scalars}'] = ('fsq', {'levels': (8,) * scalars})
  inner = {'inner': {'levels': (8,) * 10}}
  if sites_of >= 32:
    found['product-fsq 2 of 8^10'] = ('product-fsq', {'groups': 2, **inner})
  for step in (0.5, 1.0, 2.0, 3.0):
    found[f'entropy step {step:g}'] = ('entropy', {'step': step})
    found[f'priced step {step:g}'] = ('priced', {'step': step})
  for bits in (1, 2, 3):
    found[f'rounding {bits} bits'] = ('none', {'value_bits': bits})
  return found


class Given(nn.Module):
  """An encoder whose images are the latents themselves."""

  D: int
  f: int = 1

  @nn.compact
  def __call__(self, images):
    self.param('unused', nn.initializers.zeros, ())  # a model has parameters
    return images + 0.5  # which an autoencoder has taken away


class Nothing(nn.Module):
  """A decoder that is not asked."""

  f: int = 1

  def __call__(self, z):
    return z[..., :3]


class Task(NamedTuple):
  """What is coded, and how the result is measured.

  Attributes:
    images: uint8 [n, SIDE, SIDE, 3].
    test: their latents [n, H, W, D].
    z: latents of training images.
  """

  model: lj.TrainedModel
  images: np.ndarray
  test: np.ndarray
  z: np.ndarray
  metrics: Metrics

  def measured(self, latents: np.ndarray) -> dict[str, Any]:
    """Returns the errors of coded latents, and of what is decoded of them."""
    scale = 1 / self.z.std((0, 1, 2))
    centred = self.test - self.test.mean((0, 1, 2))
    variance = np.mean((centred * scale) ** 2)
    error = np.mean(((latents - self.test) * scale) ** 2)
    copies = self.model.decode_latents(latents, (SIDE, SIDE))
    found = quality(self.images, copies, self.metrics)
    return {'nmse': float(error / variance), **found}


def open_task(args: argparse.Namespace) -> Task:
  model = lj.load(args.tokenizer)
  kodak = open_source(f'folder:{args.test}', 'all')
  images = np.stack([center_crop(x['image'], SIDE) for x in kodak])
  source = open_source(args.train, 'train')
  numbers = np.linspace(0, len(source) - 1, args.images).astype(int)

  def latents_of_training() -> np.ndarray:
    crops = (center_crop(source[i]['image'], 128)[None] for i in numbers)
    return np.concatenate([model.latents(crop) for crop in crops])

  z = cached(f'{args.cache}/train.npy', latents_of_training)
  test = cached(f'{args.cache}/test.npy', lambda: model.latents(images))
  return Task(model, images, test, z, load_metrics(['lpips-alexnet']))


def cached(path: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
  if not os.path.exists(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    np.save(path, compute())
  return np.load(path)


def train(module: Autoencoder, weights: dict, z: np.ndarray, args) -> Any:
  """Returns the variables of a bottleneck that learned on latents."""
  rates = {'learning_rate': args.rate, 'dictionary_learning_rate': args.rate}
  about = OptimizerSettings(**rates, warmup=20, ema=0.98)
  optimizer = make_optimizer(about, args.steps)
  objective = Objective(module, LossSettings('latent', weights))
  start = jax.jit(
    functools.partial(create_train_state, module, optimizer, seed=0)
  )
  step = jax.jit(
    make_train_step(objective, optimizer, about.ema), donate_argnums=0
  )
  state, rng = start(z[:STARTED_FROM]), np.random.default_rng(0)
  for _ in range(args.steps):
    rows = rng.choice(len(z), args.batch, replace=False)
    state, metrics = step(state, z[rows])
  print({k: round(float(x), 4) for k, x in metrics.items()})
  return evaluation_variables(state)


@functools.partial(jax.jit, static_argnums=0)
def coded(module: Autoencoder, variables, z):
  """Returns a map of latents as they are after the bottleneck: [1, ...]."""
  return module.apply(variables, z[None]).latent.quantized


def file_bits(module: Autoencoder, variables, z, test) -> float | None:
  """Returns the mean bits of files of maps of latents."""
  if module.bottleneck.bits_per_site is None and not module.bottleneck.symbols:
    return None
  encode = jax.jit(functools.partial(module.apply, method='encode'))

  def codes_of(maps):
    for one in maps:
      codes = jax.device_get(encode(variables, one[None]))
      grid = one.shape[0] // module.patch, one.shape[1] // module.patch
      yield jax.tree.map(lambda x: x[0], codes), grid

  tables = codec.fit_tables(module.bottleneck, codes_of(z[:TABLES_FROM]))
  writer = codec.Codec(module.bottleneck, 1, 1, tables, b'none')
  sizes = [len(writer.write(codes, *grid)) for codes, grid in codes_of(test)]
  return 8 * float(np.mean(sizes))


def quality(images, others, metrics) -> dict[str, Any]:
  known = dict(zip((x.tobytes() for x in images), others, strict=True))
  coder = rate_distortion.Coder('', '', np.ndarray.tobytes, known.__getitem__)
  found = rate_distortion.measure(coder, images, metrics)
  return {k: x for k, x in found.items() if isinstance(x, dict) and 'mean' in x}


def coded_row(
  task: Task, kind: str, fields: dict[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
  """Trains a bottleneck; returns its row."""
  section, weights = bottlenecks.choose(kind, K=1024)
  section = merge(section, fields)
  section.pop('patch')
  width, sites = task.z.shape[-1], task.z.shape[1:3]
  network = {'name': 'vqvae', 'D': width}
  module = Autoencoder(
    Given(D=width),
    build_model(network, {**section, 'patch': args.patch}).bottleneck,
    Plain(network=Nothing()),
    patch=args.patch,
    standardized=True,
    channels=width,
  )
  variables = train(module, weights | {'pixel': 1.0}, task.z, args)
  latents = np.concatenate([coded(module, variables, x) for x in task.test])
  bits = module.bottleneck.map_bits(*(n // args.patch for n in sites))
  pixels = math.prod(sites) * task.model.module.encoder.f**2
  file = file_bits(module, variables, task.z, task.test)
  return {
    'bottleneck': section,
    'fixed': bits and bits / pixels,
    'file': file and file / SIDE**2,
    'steps': args.steps,
    **task.measured(latents),
  }


def classical_row(task: Task, coder: rate_distortion.Coder) -> dict[str, Any]:
  """Returns the row of files of Pillow."""
  row = rate_distortion.measure(coder, task.images, task.metrics)
  row['file'] = row.pop('bits_per_pixel')
  del row['seconds_per_megapixel']
  return row


def rows_of(
  task: Task, args: argparse.Namespace
) -> dict[str, Callable[[], dict[str, Any]]]:
  """Returns what measures each row, by its name."""
  ceiling = {'fixed': None, 'file': None}
  found = {'continuous': lambda: {**ceiling, **task.measured(task.test)}}
  width = task.z.shape[-1] * args.patch**2
  for name, (kind, fields) in settings(width).items():
    found[name] = functools.partial(coded_row, task, kind, fields, args)
  for coder in rate_distortion.classical():
    name = f'{coder.name} {coder.setting}'
    found[name] = functools.partial(classical_row, task, coder)
  return found


def main() -> None:
  args = arguments()
  task = open_task(args)
  rows = record.Record(
    args.output,
    __doc__,
    tokenizer=os.path.basename(args.tokenizer),
    hash=task.model.hash,
    trained_on=f'{args.images} images of {os.path.basename(args.train)}, '
    'middle 128 x 128',
    test=f'{len(task.images)} images, middle {SIDE} x {SIDE}',
    **{k: getattr(args, k) for k in ('patch', 'steps', 'batch', 'rate')},
  )
  only = args.only.split(';') if args.only else []
  for name, measure in rows_of(task, args).items():
    if name not in rows and (name in only or not only):
      row = measure()
      rows.add(name, **row)
      print(name, row, flush=True)
  if not only:
    rows.finish()


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--tokenizer', required=True)
  parser.add_argument('--patch', type=int, default=1)
  parser.add_argument('--train', required=True)
  parser.add_argument('--images', type=int, default=512)
  parser.add_argument('--test', required=True)
  parser.add_argument('--cache', required=True)
  parser.add_argument('--output', default='')
  parser.add_argument('--steps', type=int, default=400)
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--rate', type=float, default=3e-3)
  parser.add_argument('--only', default='', help='names of rows, with ;')
  return parser.parse_args()


if __name__ == '__main__':
  main()
