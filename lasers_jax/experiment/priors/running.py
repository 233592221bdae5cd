"""Draws from map priors, and measures their bits, in batches on a mesh."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax.core.sharding import put_batch, replicated
from lasers_jax.inference import batches_of
from lasers_jax.priors.maps.base import DrawingSettings, Known, MapPrior
from lasers_jax.training.prior_step import as_view


def draw(
  prior: MapPrior,
  variables: Any,
  labels: np.ndarray,
  drawing: DrawingSettings,
  seed: int,
  mesh: Mesh,
  indices: np.ndarray | None = None,
  known: Known | None = None,
) -> np.ndarray:
  """Draws a view for each label: NumPy [n, H, W, ...].

  Args:
    labels: int [n]; `prior.classes` is no class.
    seed: draw i is a function of it, `indices[i]` and `labels[i]` alone.
    indices: int [n]; None takes 0, 1, ...
    known: NumPy arrays [n, ...] of sites that are given; None draws all.
  """
  indices = np.arange(len(labels)) if indices is None else indices
  given = {'label': labels.astype(np.int32), 'index': indices.astype(np.int32)}
  if known is not None:
    given |= {'known_view': known.view, 'known_sites': known.sites}
  found = []
  for rows, count in _batches(given, mesh):
    views = _draw(prior, mesh, drawing, variables, seed, put_batch(rows, mesh))
    found.append(np.asarray(views)[:count])
  return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _draw(prior, mesh, drawing, variables, seed, batch) -> Array:
  keys = _keys(seed, batch['index'])
  known = None
  if 'known_view' in batch:
    known = Known(as_view(batch['known_view']), batch['known_sites'])
  view = prior.apply(
    variables, keys, batch['label'], drawing, known, method='draw'
  )
  return jax.lax.with_sharding_constraint(view, replicated(mesh))


def draw_steps(
  prior: MapPrior,
  variables: Any,
  label: int,
  drawing: DrawingSettings,
  seed: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Draws as `draw` draws its first view, and shows each of n steps.

  Args:
    prior: a `Masked`.

  Returns:
    views [n, H, W, P], and the sites that were drawn by then: bool [n, H, W];
    see `Masked.draw_steps`.
  """
  labels = np.full(1, label, np.int32)
  views, seen = jax.device_get(
    _draw_steps(prior, drawing, variables, seed, labels)
  )
  return views[:, 0], seen[:, 0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _draw_steps(prior, drawing, variables, seed, labels):
  keys = _keys(seed, jnp.zeros(1, jnp.int32))
  return prior.apply(variables, keys, labels, drawing, method='draw_steps')


def measure(
  prior: MapPrior,
  variables: Any,
  rows: Mapping[str, np.ndarray],
  mesh: Mesh,
  seed: int = 0,
) -> np.ndarray:
  """Returns the bits of each event, or what bounds them: [n, H, W, P].

  Of a prior without bits, the loss of each row without dropout: [n].

  Args:
    rows: `view` [n, H, W, ...] and `label` [n].
    seed: of the random numbers of a bound or a loss; those of row i are a
      function of it and i alone.
  """
  given = {
    'view': rows['view'],
    'label': rows['label'].astype(np.int32),
    'index': np.arange(len(rows['view']), dtype=np.int32),
  }
  found = []
  for batch, count in _batches(given, mesh):
    value = _measure(prior, mesh, variables, seed, put_batch(batch, mesh))
    found.append(np.asarray(value)[:count])
  return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measure(prior, mesh, variables, seed, batch) -> Array:
  def one(view, label, key):
    """A batch of one, so that its random numbers are of this key alone."""
    rows, rngs = (view[None], label[None]), {'prior': key}
    if prior.EXACT is None:
      losses, _ = prior.apply(variables, *rows, train=False, rngs=rngs)
      return losses[0].astype(jnp.float32)
    return prior.apply(variables, *rows, method='bits', rngs=rngs)[0]

  keys = _keys(seed, batch['index'])
  found = jax.vmap(one)(as_view(batch['view']), batch['label'], keys)
  return jax.lax.with_sharding_constraint(found, replicated(mesh))


def _keys(seed: Array, indices: Array) -> Array:
  """Returns the key of each image."""
  return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), indices)


def _batches(arrays: Mapping[str, Any], mesh: Mesh):
  """Yields batches of rows of several arrays, and how many rows are real."""
  numbers = np.arange(len(next(iter(arrays.values()))))
  for _, rows, count in batches_of(numbers, mesh):
    yield {name: x[rows] for name, x in arrays.items()}, count
