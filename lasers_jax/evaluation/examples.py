"""Computes the examples of a report for a few images of the split."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax import inference
from lasers_jax.bottlenecks.lasers import Lasers
from lasers_jax.core.images import (
  crop_center,
  to_float,
  to_uint8,
  to_uint8_range,
)
from lasers_jax.core.padding import pad, round_up
from lasers_jax.core.sharding import replicated
from lasers_jax.decoders import Draw, SamplingSettings
from lasers_jax.degradations import Degradation
from lasers_jax.evaluation import degraded, protocol
from lasers_jax.evaluation.protocol import Measured
from lasers_jax.metrics.registry import Metrics, known
from lasers_jax.networks.autoencoder import Autoencoder, Output

SHOWN = 3  # images of each: the best, the median and the worst
SAMPLED = 6  # images that are sampled in several ways
DRAWS = 8  # samples of each of them
STEPS = (1, 2, 5, 10, 20, 50)  # of sampling, besides that of the config
PURSUED = 64  # images whose coefficients are shown
LARGEST = 64  # pixels a side, of crops for coefficients and samples

Pick = Callable[[Sequence[int]], list[np.ndarray]]


class Samples(NamedTuple):
  """Several samples of the same images: uint8."""

  numbers: list[int]  # of the images in the split, the best PSNR first
  originals: np.ndarray  # [n, h, w, 3]
  initial: np.ndarray  # [n, h, w, 3], the first estimate
  draws: np.ndarray  # [DRAWS, n, h, w, 3]


class Sweep(NamedTuple):
  """Means over the images of `Samples`, of one sample each."""

  steps: list[int]
  values: dict[str, list[float]]  # by metric, one for each number of steps
  initial: dict[str, float]
  milliseconds: list[float]  # an image, decoding alone
  device: str


class Findings(NamedTuple):
  """The examples of a report."""

  pairs: dict[int, tuple[np.ndarray, np.ndarray]]  # image and reconstruction
  ranked: dict[str, dict[str, list[int]]]  # of `rank`, by metric
  atoms: np.ndarray  # [k, h, w, 3] in [0, 1]
  numbers: list[int] | None  # of the atoms, most used first; None: the first
  coefficients: np.ndarray | None  # [N, S], in the order of the pursuit
  pursued: int  # images that the coefficients are of
  samples: Samples | None
  sweep: Sweep | None


def collect(
  model: Autoencoder,
  variables: Any,
  mesh: Mesh,
  decoding: SamplingSettings,
  metrics: Metrics,
  measured: Measured,
  pick: Pick,
  side: int,
  degradation: Degradation | None = None,
) -> Findings:
  """Collects the examples of a report; all processes make the same call.

  Args:
    model, variables, mesh, decoding, metrics: as in `protocol.measure`.
    measured: its result for all images of the split.
    pick: returns images uint8 [h, w, 3] by their numbers in the split.
    side: of the crops of training. For coefficients and samples, larger images
      are cropped to it, or to LARGEST where that is more.
    degradation: of the images that the encoder sees; None for none.
  """

  def inputs_of(images, numbers):
    if degradation is None:
      return images
    return np.stack(degraded.damaged(degradation, images, numbers))

  side = max(side, LARGEST)
  ranked = _rank_all(measured)
  numbers, atoms = _atoms(model, mesh, variables, measured.counts)
  coefficients, pursued, samples, sweep = None, 0, None, None
  if isinstance(model.bottleneck, Lasers):
    # Large crops have many sites, so that a few are enough.
    most = max(1, PURSUED * LARGEST**2 // side**2)
    chosen = spread(len(measured.values['psnr']), most)
    images = crop_alike(pick(chosen), side, model.pad_multiple)
    inputs = inputs_of(images, chosen)
    coefficients, pursued = _pursue(model, mesh, variables, inputs), len(images)
  if model.decoder.is_stochastic:
    order = np.argsort(-measured.values['psnr'], kind='stable')
    chosen = [int(order[i]) for i in spread(len(order), SAMPLED)]
    images = crop_alike(pick(chosen), side, model.pad_multiple)
    samples, sweep = _sample_and_sweep(
      model, variables, mesh, decoding, metrics, chosen, images,
      inputs_of(images, chosen),
    )  # fmt: skip
  return Findings(
    _pairs(model, variables, mesh, decoding, pick, ranked, degradation),
    ranked,
    atoms,
    numbers,
    None if coefficients is None else np.asarray(coefficients),
    pursued,
    samples,
    sweep,
  )


def _pairs(model, variables, mesh, decoding, pick, ranked, degradation):
  """Returns the ranked images and their reconstructions, by number."""
  groups = [x for by_group in ranked.values() for x in by_group.values()]
  shown = sorted({i for group in groups for i in group})
  images = inputs = pick(shown)
  if degradation:
    inputs = degraded.damaged(degradation, images, shown)
  reconstructions = inference.reconstruct(
    model, variables, inputs, mesh, decoding, shown
  )
  pairs = zip(images, reconstructions, strict=True)
  return dict(zip(shown, pairs, strict=True))


def _rank_all(measured: Measured) -> dict[str, dict[str, list[int]]]:
  return {
    name: rank(measured.values[name], not row.higher_is_better)
    for name, row in known(measured.values).items()
    if row.ranks
  }


def rank(
  values: np.ndarray, lower_is_better: bool = False
) -> dict[str, list[int]]:
  """Finds the best, the median and the worst of values [n], at most 3 of each.

  Returns:
    Numbers in [0, n) under 'best', 'median' and 'worst', no number twice; the
    most extreme comes first, and NaN is the worst of all.
  """
  order = np.argsort(values if lower_is_better else -values, kind='stable')
  order, n = [int(i) for i in order], len(values)
  each = max(1, min(SHOWN, n // 3))
  middle = (n - each) // 2
  return {
    'best': order[:each],
    'median': order[middle : middle + each] if n > 2 else [],
    'worst': order[::-1][:each] if n > 1 else [],
  }


def spread(count: int, most: int) -> list[int]:
  """Returns evenly spaced numbers in [0, count), at most `most` of them."""
  places = np.linspace(0, count - 1, min(count, most))
  return [int(i) for i in np.round(places)]


def crop_alike(
  images: list[np.ndarray], side: int, pad_multiple: int
) -> np.ndarray:
  """Crops images uint8 [h, w, 3] to their middles, all of one size.

  Returns:
    uint8 [n, h, w, 3], as large as the smallest image and `side` allow. The
    sides are multiples of `pad_multiple`; smaller images repeat their edge.
  """
  h, w = (
    min(side, *(image.shape[axis] for image in images)) for axis in (0, 1)
  )
  h, w = (x - x % pad_multiple if x > pad_multiple else x for x in (h, w))
  sides = [round_up(x, pad_multiple) for x in (h, w)]
  return np.stack([pad(crop_center(x, h, w), sides=sides) for x in images])


def _atoms(model, mesh, variables, counts):
  """Returns the numbers of the most used atoms, and what they decode to."""
  shape = jax.eval_shape(
    lambda x: model.bind(x).bottleneck.atoms(), variables
  ).shape
  numbers = order = None
  # Where the symbols are levels of scalars they are no atoms.
  if len(counts) and len(counts) == shape[0]:
    order = np.argsort(-counts, kind='stable')[: inference.MOST_ATOMS]
    numbers = [int(i) for i in order]
  return numbers, np.asarray(
    inference.decode_atoms(model, mesh, variables, order)
  )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pursue(model, mesh, variables, images) -> Array:
  """Returns coefficients as they are decoded, in the order of the pursuit."""

  def pursue(whole, images):
    signals = whole.pack(whole.encoder(images - 0.5))
    return whole.bottleneck.pursue(signals).coefficients

  found = model.apply(variables, to_float(images), method=pursue)
  return jax.lax.with_sharding_constraint(found, replicated(mesh))


def _sample_and_sweep(
  model, variables, mesh, decoding, metrics, numbers, images, inputs
) -> tuple[Samples, Sweep | None]:
  """Samples images [n, h, w, 3] of inputs in several ways."""
  output, inputs = _code(model, mesh, variables, inputs), to_float(inputs)
  indices, quantized = np.array(numbers, np.int32), output.latent.quantized
  draws = [Draw(indices, np.int32(i)) for i in range(DRAWS)]
  compiled = {
    settings: _sample.lower(
      model, mesh, settings, variables, quantized, draws[0], inputs
    ).compile()
    for settings in _with_steps(decoding)
  }
  usual = compiled[decoding]
  drawn = [_uint8(usual(variables, quantized, x, inputs)) for x in draws]
  initial = output.images
  samples = Samples(numbers, images, _uint8(initial), np.stack(drawn))
  if not hasattr(decoding, 'steps'):
    return samples, None
  given = variables, quantized, draws[0], inputs
  timed = [_time(x, *given) for x in compiled.values()]
  decoded, seconds = zip(*timed, strict=True)
  fitting = metrics.fitting(min(images.shape[1:3]))
  *each, first = (
    _mean_metrics(fitting.modules, fitting.params, images, x)
    for x in (*decoded, initial)
  )
  return samples, Sweep(
    [settings.steps for settings in compiled],
    {name: [float(x[name]) for x in each] for name in first},
    {name: float(x) for name, x in first.items()},
    [1e3 * x / len(images) for x in seconds],
    mesh.devices.flat[0].device_kind,
  )


def _with_steps(decoding: SamplingSettings) -> list[SamplingSettings]:
  """Returns the settings at several numbers of steps, where they have any."""
  if not hasattr(decoding, 'steps'):
    return [decoding]
  steps = sorted({*STEPS, decoding.steps})
  return [dataclasses.replace(decoding, steps=n) for n in steps]


def _time(compiled, *arrays) -> tuple[Array, float]:
  """Returns decoded images, and the seconds of the faster of two runs."""
  seconds = []
  for _ in range(2):
    started = time.perf_counter()
    decoded = jax.block_until_ready(compiled(*arrays))
    seconds.append(time.perf_counter() - started)
  return decoded, min(seconds)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _code(model, mesh, variables, images) -> Output:
  output = model.apply(variables, to_float(images))
  return jax.lax.with_sharding_constraint(output, replicated(mesh))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(model, mesh, decoding, variables, quantized, draw, inputs) -> Array:
  images = model.apply(
    variables, quantized, draw, decoding, inputs, method='sample'
  )
  return jax.lax.with_sharding_constraint(images, replicated(mesh))


def _uint8(images: Array) -> np.ndarray:
  return to_uint8(to_uint8_range(images))


@functools.partial(jax.jit, static_argnums=0)
def _mean_metrics(modules, params, images, decoded) -> dict[str, Array]:
  """Returns means of metrics over images uint8 and decoded ones as floats."""
  rounded = to_uint8_range(decoded)
  values = protocol.compare(modules, params, to_float(images), rounded)
  return {name: x.mean() for name, x in values.items()}
