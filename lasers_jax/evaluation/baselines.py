"""Measures restorations that need no model."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lasers_jax.core.images import as_rgb, to_float, to_uint8_range
from lasers_jax.core.padding import pad, sizes_of
from lasers_jax.core.sharding import put_batch, replicated
from lasers_jax.degradations import Degradation, in_evaluation
from lasers_jax.degradations.baselines import Missing, baselines
from lasers_jax.evaluation.degraded import each_row
from lasers_jax.evaluation.protocol import compare
from lasers_jax.evaluation.sending import Senders
from lasers_jax.metrics import statistics
from lasers_jax.metrics.registry import Metrics


def restored_simply(
  degradation: Degradation, images: Sequence[np.ndarray]
) -> dict[str, list[np.ndarray]]:
  """Returns the first images of a split as methods without a model restore.

  Args:
    images: uint8 [h, w, 3].

  Returns:
    uint8 images by the name of the method; those as they are by `input`.
  """
  found = [in_evaluation(degradation, x, i) for i, x in enumerate(images)]
  made = {'input': [x.inputs[..., :3] for x in found]}
  for name, restore in baselines(degradation).items():
    if not isinstance(restore, Missing):
      made[name] = [
        restore(degradation.observed(*pair), pair[1].known[..., 0] > 0)
        for pair in zip(images, found, strict=True)
      ]
  return {name: [as_rgb(x) for x in images] for name, images in made.items()}


def measure_baselines(
  degradation: Degradation,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
  metrics: Metrics,
  senders: Senders,
) -> dict[str, dict[str, Any]]:
  """Measures methods without a model on the images that a model would see.

  Args:
    batches, mesh, metrics: as of `protocol.measure`.
    senders: others by name, which send what they observe as a file.

  Returns:
    By name, each metric of single images as `protocol.summarize` has it; or
    {'missing': the reason}. `input` is of the degraded images as they are;
    what was sent has its own `bits_per_pixel`.
  """
  methods = dict(baselines(degradation))
  found: dict[str, dict[int, dict]] = {}
  for batch in batches:
    rows = list(each_row(degradation, batch))
    sides = batch['image'].shape[1:3]
    pairs = [_observed(degradation, *row) for row in rows]
    made = {'input': [x.inputs[..., :3] for _, x in rows]}
    for name, restore in methods.items():
      if not isinstance(restore, Missing):
        made[name] = [np.asarray(restore(*x), np.float32) for x in pairs]
    bits = {}
    for name, send in senders.items():
      if not isinstance(send, Missing):
        sent = [send(*x) for x in pairs]
        made[name] = [x for x, _ in sent]
        bits[name] = np.array([x for _, x in sent], np.float32)
    for name, results in made.items():
      results = [pad(x, sides=sides) for x in results]
      values = _score(
        degradation, metrics, mesh, batch, rows, results, bits.get(name)
      )
      found.setdefault(name, {}).update(values)
  absent = {**methods, **senders}.items()
  return {
    **{name: _summary(values) for name, values in found.items()},
    **{k: {'missing': x.reason} for k, x in absent if isinstance(x, Missing)},
  }


def _observed(degradation, image, degraded) -> tuple[np.ndarray, np.ndarray]:
  """Returns what is observed of a padded image, and where it is the truth."""
  known = degraded.known[..., 0] > 0
  truth = image[: known.shape[0], : known.shape[1]]
  return degradation.observed(truth, degraded), known


def _score(
  degradation, metrics, mesh, batch, rows, results, bits=None
) -> dict[int, dict]:
  """Returns the values of each real image of all processes, by its number."""
  kept = {x: batch[x] for x in ('image', 'mask', 'index')}
  if bits is not None:
    kept['bits'] = bits
  kept['made'] = np.stack(results)
  sides = batch['image'].shape[1:3]
  kept['known'] = np.stack([pad(x.known, sides=sides) for _, x in rows])
  sizes = sizes_of(batch['image'], batch['height'], batch['width'])
  if sizes is not None:
    kept['sizes'] = sizes
  found = jax.device_get(
    _values(
      metrics.modules, degradation, mesh, metrics.params, put_batch(kept, mesh)
    )
  )
  return {
    int(found['index'][i]): {k: x[i] for k, x in found['values'].items()}
    for i in np.flatnonzero(found['mask'])
  }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _values(modules, degradation, mesh, params, batch):
  made = to_uint8_range(batch['made'])
  images, sizes = to_float(batch['image']), batch.get('sizes')
  values = compare(modules, params, images, made, sizes)
  values |= degradation.scores(images, made, batch['known'], sizes)
  if 'bits' in batch:
    values['bits_per_pixel'] = batch['bits']
  result = {'values': values, 'index': batch['index'], 'mask': batch['mask']}
  return jax.lax.with_sharding_constraint(result, replicated(mesh))


def _summary(rows: dict[int, dict]) -> dict[str, Any]:
  ordered = [rows[i] for i in sorted(rows)]
  return {
    name: statistics.summarize(np.array([x[name] for x in ordered], np.float64))
    for name in ordered[0]
  }
