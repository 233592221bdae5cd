"""Measures by the protocol: a whole split, one value per image, and bits."""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax.core.images import save_png, to_float, to_uint8, to_uint8_range
from lasers_jax.core.padding import sizes_of
from lasers_jax.core.sharding import batch_sharding, put_batch, replicated
from lasers_jax.core.storage import make_folder
from lasers_jax.decoders import Draw, SamplingSettings
from lasers_jax.degradations import Degradation
from lasers_jax.errors import InputError
from lasers_jax.evaluation import degraded
from lasers_jax.metrics import code_usage, statistics
from lasers_jax.metrics.base import extract
from lasers_jax.metrics.registry import ALWAYS, METRICS, Metrics, known
from lasers_jax.networks.autoencoder import Autoencoder, Output

PROTOCOL = {
  'colour': 'RGB in [0, 1]',
  'reconstruction': 'clipped and rounded to uint8',
  'interval': (
    '95 % percentile bootstrap of the mean, 1000 draws, widened by that of '
    'Student, from 10 images up'
  ),
  'usage': 'distinct codes over the whole split / K',
  'perplexity': 'exponential of the entropy of the same histogram',
}


class Measured(NamedTuple):
  """Values of single images and counts of codes: the input of results."""

  values: dict[str, np.ndarray]  # float64, one per image, in the split's order
  scores: dict[str, float]
  counts: np.ndarray  # int64 [symbols]
  bits: float | None  # of all images, at fixed length
  pixels: int


def evaluate(
  model: Autoencoder,
  variables: Any,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
  degradation: Degradation | None = None,
) -> dict[str, Any]:
  """Measures quality and bits over a split, by `measure` and `summarize`."""
  measured = measure(
    model, variables, batches, mesh, decoding, degradation=degradation
  )
  return summarize(measured)


def summarize(measured: Measured) -> dict[str, Any]:
  """Returns the results of a measurement.

  Returns:
    Each metric of single images (mean, low, high, count) and each of sets;
    `bits_per_pixel`, whose `fixed_length` is a number or 'continuous'; for a
    discrete code `usage` and `perplexity`. A decoder that samples is measured
    on one sample an image, and `initial` has the metrics of its first estimate.
    Of a restoration, `input` has those of the degraded images, `clean` those of
    copies of images without damage by the same model, and `pasted` those of
    results with the known pixels pasted.
  """
  bits = measured.bits
  fixed = 'continuous' if bits is None else bits / measured.pixels
  results: dict[str, Any] = {}
  for name, values in measured.values.items():
    *before, name = name.split('/')
    home = results.setdefault(before[0], {}) if before else results
    home[name] = statistics.summarize(values)
  return {
    **results,
    **measured.scores,
    **_use(measured.counts),
    'bits_per_pixel': {'fixed_length': fixed},
  }


def _use(counts: np.ndarray) -> dict[str, float]:
  """Returns usage and perplexity; nothing for a continuous code."""
  if not len(counts):
    return {}
  usage, perplexity = code_usage.usage(counts), code_usage.perplexity(counts)
  return {'usage': usage, 'perplexity': perplexity}


def check_size(height: int, width: int, metrics: Metrics = ALWAYS) -> None:
  """Raises InputError where images are too small for a metric."""
  for name, minimum in metrics.minimum_sides.items():
    if min(height, width) < minimum:
      raise InputError(
        f'{METRICS[name].title} needs images of at least {minimum}x{minimum} '
        f'pixels, not {height}x{width}'
      )


def measure(
  model: Autoencoder,
  variables: Any,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
  metrics: Metrics = ALWAYS,
  dump: str | None = None,
  degradation: Degradation | None = None,
) -> Measured:
  """Measures a model over all images of a split.

  Args:
    model, variables: the autoencoder, its params and codebook.
    batches: of `data.evaluation_batches`; each process gives its own rows.
    mesh: the devices to compute on; results do not depend on them.
    decoding: the sampling settings of the decoder; None takes its defaults.
    metrics: the metrics to measure.
    dump: a folder for images and reconstructions as PNG files; None writes
      none.
    degradation: of the images that the encoder sees; None for none.
  """
  values: dict[int, dict[str, float]] = {}
  counts = np.zeros(model.bottleneck.symbols, np.int64)
  features = {name: x.start() for name, x in metrics.of_sets.items()}
  bits, pixels = 0.0, 0
  for batch in batches:
    rows = {x: batch[x] for x in ('image', 'mask', 'index', 'height', 'width')}
    for size in zip(batch['height'], batch['width'], strict=True):
      check_size(*size, metrics)
    sizes = sizes_of(batch['image'], batch['height'], batch['width'])
    if sizes is not None:
      rows['sizes'] = sizes
    if degradation:
      rows |= degraded.damage(degradation, batch)
    result, reconstructions = _measure_batch(
      model, mesh, decoding, metrics.modules, variables, metrics.params,
      put_batch(rows, mesh), degradation=degradation,
    )  # fmt: skip
    result = jax.device_get(result)
    for i in np.flatnonzero(result['mask']):
      row = {name: x[i] for name, x in result['values'].items()}
      values[int(result['index'][i])] = row
      h, w = int(result['height'][i]), int(result['width'][i])
      each = model.map_bits(h, w)
      bits = None if each is None else bits + each
      pixels += h * w
    if len(counts):
      counts += np.bincount(_codes(model, result), minlength=len(counts))
    if features or dump:
      pair = batch['image'], _own_rows(reconstructions)
      _add_features(features, metrics, pair, sizes, mesh, result['mask'])
    if dump:
      whole = [_cut(x, batch['height'], batch['width']) for x in pair]
      dump_images(dump, batch['index'], batch['mask'], *whole)
  scores = {k: x.score(*features[k]) for k, x in metrics.of_sets.items()}
  return Measured(_columns(values), scores, counts, bits, pixels)


def _codes(model, result) -> np.ndarray:
  """Returns the codes of the images of a batch, without padding: [any]."""
  found = [np.zeros(0, np.int32)]
  for i in np.flatnonzero(result['mask']):
    size = int(result['height'][i]), int(result['width'][i])
    rows, columns = model.bottleneck.grid(*model.coded_sites(*size))
    found.append(result['codes'][i, :rows, :columns].ravel())
  return np.concatenate(found)


def _cut(images, heights, widths) -> list[np.ndarray]:
  """Removes the padding of images [B, h, w, 3]."""
  each = zip(images, heights, widths, strict=True)
  return [image[:h, :w] for image, h, w in each]


def _add_features(features, metrics, pair, sizes, mesh, real) -> None:
  """Adds the features of a batch of images and of their reconstructions."""
  for name, sides in features.items():
    for side, images in zip(sides, pair, strict=True):
      side.add(extract(metrics.of_sets[name], images, mesh, sizes)[real])


def _columns(rows: dict[int, dict[str, float]]) -> dict[str, np.ndarray]:
  """Turns the values of each image into one array a metric."""
  ordered = [rows[i] for i in sorted(rows)]
  return {
    name: np.array([row[name] for row in ordered], np.float64)
    for name in ordered[0]
  }


def _own_rows(images: Array) -> np.ndarray:
  """Returns the rows of a batch that are of this process: uint8."""
  shards = {
    shard.index[0].start or 0: shard.data for shard in images.addressable_shards
  }
  return to_uint8(np.concatenate([shards[i] for i in sorted(shards)]))


@functools.partial(
  jax.jit, static_argnums=(0, 1, 2, 3), static_argnames='degradation'
)
def _measure_batch(
  model, mesh, decoding, modules, variables, params, batch, degradation=None
) -> tuple[dict[str, Any], Array]:
  """Measures one value per image; every process gets the values of all."""
  batch = dict(batch)
  images, sizes = to_float(batch.pop('image')), batch.pop('sizes', None)
  inputs, known = batch.pop('inputs', images), batch.pop('known', None)
  draw = Draw(batch['index'], sizes=sizes)
  made, output = _made(model, variables, inputs, draw, decoding)
  rounded, others = to_uint8_range(made), {}
  if model.decoder.is_stochastic:
    others['initial'] = to_uint8_range(output.images)
  if degradation:
    others['input'] = to_uint8_range(inputs[..., :3])
    if not model.sees_input:
      clean, _ = _made(model, variables, images, draw, decoding)
      others['clean'] = to_uint8_range(clean)
      if degradation.takes_mask:
        others['pasted'] = jnp.where(known > 0, images, rounded)
  values = {}
  for group, x in {'': rounded, **others}.items():
    scored = compare(modules, params, images, x, sizes)
    if degradation:
      scored |= degradation.scores(images, x, known, sizes)
    prefix = f'{group}/' if group else ''
    values |= {prefix + name: value for name, value in scored.items()}
  result = {'values': values, **batch}
  if model.bottleneck.symbols:
    result['codes'] = model.bottleneck.indices(output.latent.codes)
  result = jax.lax.with_sharding_constraint(result, replicated(mesh))
  return result, jax.lax.with_sharding_constraint(rounded, batch_sharding(mesh))


def _made(model, variables, inputs, draw, decoding) -> tuple[Array, Output]:
  """Returns the images that a model makes of inputs, and the first pass."""
  output = model.apply(variables, inputs, sizes=draw.sizes)
  quantized = output.latent.quantized
  made = model.apply(
    variables, quantized, draw, decoding, inputs, method='sample'
  )
  return made, output


def compare(
  modules: Sequence[tuple[str, Any]],
  params: Any,
  images: Array,
  reconstructions: Array,
  sizes: Array | None = None,
) -> dict[str, Array]:
  """Computes metrics of single images and their reconstructions: [B] each.

  Args:
    modules, params: of `Metrics`.
    images, reconstructions: [B, h, w, 3] in [0, 1].
    sizes: int32 [B, 2], height and width of each image, which lies at the top
      left; the rest is padding. None: there is none.
  """
  pair = images, reconstructions
  pair = pair if sizes is None else (*pair, sizes)
  return {
    name: module.apply({'params': params[name]}, *pair)
    for name, module in modules
  }


def one_line(results: dict[str, Any]) -> str:
  """Returns the results on one line, with the bits beside the quality."""
  bits = results['bits_per_pixel']['fixed_length']
  bits = bits if isinstance(bits, str) else f'{bits:.4g} bits per pixel'
  parts = [
    f'{row.title} {row.quantity(mean_of(results[name]))}'
    for name, row in known(results).items()
  ]
  interval = statistics.describe_interval(results['psnr'])
  parts[0] += f' ({interval})' if interval else ''
  parts.append(bits)
  if 'usage' in results:
    parts.append(f'usage {results["usage"]:.1%}')
    parts.append(f'perplexity {results["perplexity"]:.1f}')
  return ', '.join([*parts, f'{results["psnr"]["count"]} images'])


def mean_of(value: Any) -> float:
  """Returns the mean over images, or the one value of a metric of sets."""
  return value['mean'] if isinstance(value, Mapping) else value


def scalars(results: dict[str, Any], prefix: str) -> dict[str, float]:
  """Returns the results as scalars for a log, named prefix/name."""
  values = {
    **{name: mean_of(results[name]) for name in known(results)},
    'bits_per_pixel': results['bits_per_pixel']['fixed_length'],
    **{x: results[x] for x in ('usage', 'perplexity') if x in results},
  }
  return {
    f'{prefix}/{name}': value
    for name, value in values.items()
    if not isinstance(value, str)
  }


def dump_images(folder, indices, mask, originals, reconstructions):
  """Writes images as PNG files: original/7.png, reconstruction/7.png.

  Args:
    folder: to write into.
    indices: int [n], numbers that name the files.
    mask: bool [n], the images to write.
    originals, reconstructions: n images uint8 [h, w, 3] each.
  """
  sides = {'original': originals, 'reconstruction': reconstructions}
  for name, images in sides.items():
    inner = os.path.join(folder, name)
    make_folder(inner)
    for i in np.flatnonzero(mask):
      save_png(os.path.join(inner, f'{int(indices[i])}.png'), images[i])
