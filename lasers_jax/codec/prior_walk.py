"""Codes events by a prior over maps: it is the model of their probabilities.

A prior computes in floats, whose last bits depend on the machine, the program
and the shapes of arrays: a step with a cache differs from the same row of a
whole pass. A single weight that differs makes all that follows it meaningless.
So writer and reader walk by the same compiled programs, of one image and one
site, and `program` names these. From logits on, all is in integers.
"""

import functools
import hashlib
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax.codec.coder import RowCoder
from lasers_jax.codec.tables import FINE, powers
from lasers_jax.priors.maps.autoregressive import Autoregressive


class _Programs(NamedTuple):
  """Functions of the variables and more, lowered or compiled.

  Attributes:
    begin: gives the walk before the first site.
    enter: of the walk and the number of a site, gives the walk in it, and the
      total and the logits of plane 0.
    planes: of each plane after 0: of the total and the events before it, gives
      the same.
    advance: of the walk and the events of a site, gives the walk after it.
  """

  begin: Any
  enter: Any
  planes: list[Any]
  advance: Any


class PriorWalk:
  """Leads a coder through the events of one image, without its class."""

  def __init__(self, prior: Autoregressive, variables: Any, device: jax.Device):
    self._prior, self.device = prior, device
    self._variables = jax.device_put(variables, device)

  def code(
    self, coder: RowCoder, events: np.ndarray | None = None
  ) -> np.ndarray:
    """Codes events int32 [H, W, P], which a reader finds: it takes None."""
    t, planes = self._prior.shape
    programs, variables = self._programs, self._variables
    found = np.zeros((t, 1, planes), np.int32)
    walk = programs.begin(variables)
    for j, site in enumerate(found):
      walk, total, logits = programs.enter(variables, walk, np.int32(j))
      for p in range(planes):
        if p:
          program = programs.planes[p - 1]
          total, logits = program(variables, total, site[:, :p])
        row, column = divmod(j, self._prior.sites[1])
        given = None if events is None else int(events[row, column, p])
        site[0, p] = coder.one(given, weights_of(np.asarray(logits)))
      walk = programs.advance(variables, walk, site)
    return found.reshape(*self._prior.sites, planes)

  @functools.cached_property
  def program(self) -> str:
    """Returns what names the programs, and the flags they are compiled with."""
    digest = hashlib.sha256(os.environ.get('XLA_FLAGS', '').encode())
    for lowered in jax.tree.leaves(self._lowered):
      digest.update(lowered.as_text().encode())
    return digest.hexdigest()

  @functools.cached_property
  def _programs(self) -> _Programs:
    return jax.tree.map(lambda lowered: lowered.compile(), self._lowered)

  @functools.cached_property
  def _lowered(self) -> _Programs:
    _, planes = self._prior.shape
    begin, walk = self._lower(_begin)
    enter, (_, total, _) = self._lower(_enter, walk, _int32())
    later = [
      self._lower(_next_plane, total, _int32(1, p))[0] for p in range(1, planes)
    ]
    advance, _ = self._lower(_advance, walk, _int32(1, planes))
    return _Programs(begin, enter, later, advance)

  def _lower(self, method: Callable[..., Any], *shapes: Any) -> tuple[Any, Any]:
    """Lowers a function of the module and more; also the shapes it gives."""
    act = functools.partial(self._prior.apply, method=method)
    # A walk goes on in the same memory.
    donated = (1,) if method in (_enter, _advance) else ()
    lowered = jax.jit(act, donate_argnums=donated).lower(
      self._variables, *shapes
    )
    return lowered, jax.eval_shape(act, self._variables, *shapes)


def weights_of(logits: np.ndarray) -> np.ndarray:
  """Returns weights of the values of an event: int64 [V].

  Those of legal values are 1 or more, those of others 0.

  Args:
    logits: float32 [1, V], natural; -inf where a value is not legal.
  """
  legal = np.isfinite(logits)
  bits = np.rint(np.where(legal, logits, 0) * (np.float64(FINE) / math.log(2)))
  bits = np.where(legal, bits, bits.min() - 1).astype(np.int64)
  return np.where(legal, np.maximum(powers(bits), 1), 0)[0]


def _begin(prior):
  return prior.begin(jnp.full(1, prior.classes, jnp.int32))


def _enter(prior, walk, j):
  h, walk = prior.enter(walk, j)
  none = jnp.zeros((1, 0), jnp.int32)
  return walk, *prior.event_logits(h, none, walk.left)


def _next_plane(prior, total, events):
  return prior.event_logits(total, events, None)


def _advance(prior, walk, events):
  return prior.advance(walk, events)


def _int32(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.int32)
