"""What priors over events share: embeddings, and the head over planes."""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lasers_jax.core.ranges import Decay, Whole
from lasers_jax.priors.maps import choose
from lasers_jax.priors.maps.base import Known, MapPrior
from lasers_jax.priors.maps.layout import Layout
from lasers_jax.priors.maps.transformer import SwiGLU, Transformer

BIT = math.log(2)  # in nats

embedding_init = nn.initializers.normal(0.02)
# What is added to the output of the body, whose entries are of size 1. With
# 0.02 the second plane of a Markov chain is at 5.0 bits after 150 steps, with
# this at 3.1, of 2.6 in all.
own_init = nn.initializers.normal(1.0)

# Of arrays of each plane, by their names, the axis of its values.
VALUE_AXES = {'tables': 0, 'vectors': 0, 'outs': 1}


def event_tables(
  sizes: tuple[int, ...], width: int, init: nn.initializers.Initializer
) -> list[nn.Embed]:
  """Returns a table [V_p, w] for each plane."""
  return [nn.Embed(v, width, embedding_init=init) for v in sizes]


class DepthHead(nn.Module):
  """Predicts the events of a site, plane by plane.

  Plane p is predicted from the output of the body, plus the embeddings of the
  events of planes before p and one of p itself, by a few residual layers that
  act on each site alone. (RQ-Transformer, D. Lee et al., arXiv 2203.01941, has
  a second transformer here.)
  """

  layout: Layout
  width: int
  layers: int
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    sizes = self.layout.sizes
    shape = len(sizes), self.width
    self.planes = self.param('planes', embedding_init, shape, jnp.float32)
    # Nothing follows the last plane.
    self.tables = event_tables(sizes[:-1], self.width, own_init)
    self.norms = [nn.RMSNorm(dtype=self.dtype) for _ in range(self.layers + 1)]
    self.mlps = [
      SwiGLU(self.width, dtype=self.dtype) for _ in range(self.layers)
    ]
    self.drop = nn.Dropout(self.dropout)
    in_float32 = functools.partial(
      lax.dot_general, preferred_element_type=jnp.float32
    )
    self.outs = [
      nn.Dense(
        v,
        use_bias=False,
        dtype=self.dtype,
        kernel_init=nn.initializers.zeros,
        dot_general=in_float32,
      )
      for v in sizes
    ]

  def __call__(
    self,
    h: Array,
    events: Array,
    left: Array | None = None,
    smoothing: float = 0.0,
    train: bool = False,
  ) -> tuple[Array, Array]:
    """Returns -ln p of events int32 [..., P], and their losses: [..., P].

    Args:
      h: [..., w], output of the body.
      left: see `Layout.legal`.
      smoothing: the share of the target, in the loss, that is spread over all
        legal values.
    """
    totals = [h.astype(self.dtype)]
    for p in range(len(self.outs) - 1):
      totals.append(self.add(totals[-1], p, events[..., p]))
    x = jnp.stack(totals, axis=-2) + self._aligned(self.planes, h.ndim + 1)
    x = self._layers(x, train)

    def plane(p, head, x):
      legal = head.layout.legal(p, events[..., :p], None if p else left)
      logits = choose.allow(head.outs[p](x), legal)
      return _cross_entropy(logits, events[..., p], smoothing)

    # The backward pass has the logits of one plane at a time.
    parts = [
      nn.remat(functools.partial(plane, p))(self, x[..., p, :])
      for p in range(len(self.outs))
    ]
    nats, losses = zip(*parts, strict=True)
    return jnp.stack(nats, axis=-1), jnp.stack(losses, axis=-1)

  def add(self, total: Array, p: int, event: Array) -> Array:
    """Returns the input of plane p + 1 [..., w], from that of plane p."""
    return total + self.tables[p](event).astype(self.dtype)

  def logits(self, total: Array, p: int) -> Array:
    """Returns the logits of plane p, before legality: float32 [..., V_p].

    Args:
      total: [..., w], the output of the body for p = 0; see `add`.
    """
    x = total + self._aligned(self.planes[p], total.ndim)
    return self.outs[p](self._layers(x, False))

  def _layers(self, x, train):
    for norm, mlp in zip(self.norms[:-1], self.mlps, strict=True):
      x = x + self.drop(mlp(norm(x)), deterministic=not train)
    return self.norms[-1](x)

  def _aligned(self, table, ndim):
    table = table.astype(self.dtype)
    return table.reshape((1,) * (ndim - table.ndim) + table.shape)


def _cross_entropy(logits, target, smoothing):
  """-ln p of targets, and the loss with label smoothing."""
  chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
  total = jax.nn.logsumexp(logits, axis=-1)
  nats = total - chosen
  if not smoothing:
    return nats, nats
  legal = jnp.isfinite(logits)
  sums = jnp.sum(jnp.where(legal, logits, 0.0), axis=-1)
  spread = total - sums / jnp.sum(legal, axis=-1)
  return nats, (1 - smoothing) * nats + smoothing * spread


class TokenPrior(MapPrior):
  """Models events of a code by a transformer over sites and a depth head.

  Attributes:
    layout: of the events.
    D: width of what the decoder receives for a site of the layout; 0 leaves it
      unknown.
    depth_layers: residual layers of the depth head.
    smoothing: of labels, over the legal values; in the loss alone.
  """

  Drawing = choose.TokenDrawing

  layout: Layout | None = None
  D: Whole = 0
  depth_layers: Whole = 2
  smoothing: Decay = 0.0

  def setup(self):
    assert self.layout is not None
    self.tables = event_tables(self.layout.sizes, self.width, embedding_init)
    self.vectors = [
      self.variable(
        'codebook', f'vectors_{p}', jnp.zeros, (size, self.D), jnp.float32
      )
      for p, size in enumerate(self.layout.sizes)
      if self.D
    ]
    self.project = nn.Dense(
      self.width, use_bias=False, dtype=self.dtype, kernel_init=embedding_init
    )
    self.labels = nn.Embed(
      self.classes + 1, self.width, embedding_init=embedding_init
    )
    shape = self.shape[0], self.width
    self.places = self.param('places', embedding_init, shape, jnp.float32)
    self.body = Transformer(
      self.width,
      self.layers,
      self.heads,
      self.dropout,
      self.remat,
      self.dtype,
    )
    self.head = DepthHead(
      self.layout, self.width, self.depth_layers, self.dropout, self.dtype
    )

  def value_axes(self, names: Sequence[str]) -> Sequence[int]:
    """Says which axis of an array has the values of an event."""
    kinds = [name.rpartition('_')[0] for name in names]
    return [VALUE_AXES[kind] for kind in kinds if kind in VALUE_AXES]

  @property
  def shape(self) -> tuple[int, int]:
    """T and P."""
    return math.prod(self.sites), len(self.layout.sizes)

  @property
  def positions(self) -> Array:
    """Row and column of each site, in raster order: int32 [1, T, 2]."""
    grid = jnp.indices(self.sites, dtype=jnp.int32)
    return grid.reshape(1, 2, -1).transpose(0, 2, 1)

  def initialize(
    self, view: np.ndarray, quantized: np.ndarray | None = None
  ) -> None:
    """Learns what each event means for the decoder; writes `codebook`.

    The mean of what the decoder receives where an event is, over sites, in
    units of its deviation: codes that look alike are then alike from the start.

    Args:
      view: events [n, H, W, P].
      quantized: float32 [n, H, W, D].
    """
    assert quantized is not None
    vectors = quantized.reshape(-1, self.D).astype(np.float64)
    vectors -= vectors.mean(axis=0)
    vectors /= max(np.sqrt(np.mean(vectors**2)), 1e-12)
    for p, home in enumerate(self.vectors):
      events = view[..., p].ravel()
      sums = np.zeros(home.value.shape)
      np.add.at(sums, events, vectors)
      counts = np.bincount(events, minlength=len(sums))
      means = sums / np.maximum(counts, 1)[:, None]
      home.value = jnp.asarray(means, jnp.float32)

  def embed(self, events: Array) -> Array:
    """Returns the embedding [..., w] of the events int32 [..., P] of sites."""
    learned = sum(table(events[..., p]) for p, table in enumerate(self.tables))
    if not self.D:
      return learned
    vectors = sum(x.value[events[..., p]] for p, x in enumerate(self.vectors))
    return learned + self.project(vectors)

  def given(self, known: Known | None, b: int) -> tuple[Array, Array]:
    """Returns events int32 [b, T, P], and where they are known: bool [b, T]."""
    t, p = self.shape
    if known is None:
      return jnp.zeros((b, t, p), jnp.int32), jnp.zeros((b, t), bool)
    view = jnp.asarray(known.view, jnp.int32).reshape(b, t, p)
    return view, jnp.asarray(known.sites).reshape(b, t)

  def doubled(self, labels: Array, drawing: choose.TokenDrawing) -> Array:
    """Returns labels [B], with "no class" after them [2B] where guided."""
    if not drawing.guided:
      return labels
    return jnp.concatenate([labels, jnp.full_like(labels, self.classes)])

  def draw_events(
    self,
    keys: Array,
    h: Array,
    guidance: Array,
    left: Array | None,
    drawing: choose.TokenDrawing,
  ) -> tuple[Array, Array]:
    """Draws the events of sites, plane by plane.

    Args:
      keys: [B].
      h: [B, ..., w], output of the body; [2B, ..., w] where guided, see
        `doubled`.
      guidance: of the logits.
      left: [B, ..., 2] or None, see `Layout.legal`.

    Returns:
      events: int32 [B, ..., P].
      nats: [B, ...], -ln p of them, after guidance and before temperature.
    """
    events = jnp.zeros((len(keys), *h.shape[1:-1], 0), jnp.int32)
    total, nats = h.astype(self.dtype), jnp.zeros(events.shape[:-1])
    guidance = guidance if drawing.guided else None
    for p in range(len(self.layout.sizes)):
      total, logits = self.event_logits(total, events, left, guidance)
      sharp = choose.sharpen(logits, drawing)
      event = choose.pick(choose.fold(keys, p), sharp)
      nats += _cross_entropy(logits, event, 0.0)[0]
      events = jnp.concatenate([events, event[..., None]], axis=-1)
    return events, nats

  def event_logits(
    self,
    total: Array,
    events: Array,
    left: Array | None,
    guidance: Array | None = None,
  ) -> tuple[Array, Array]:
    """Predicts the next event of sites, of plane p.

    Args:
      total: [B, ..., w], or [2B, ..., w] where guided: the output of the body
        for p = 0, then what this method returned for plane p - 1.
      events: int32 [B, ..., p], those of the planes before.
      left: [B, ..., 2] or None, see `Layout.legal`.
      guidance: of the logits; None is no guidance.

    Returns:
      The total for the next plane, and logits float32 [B, ..., V_p], which are
      -inf where a value is not legal.
    """
    p = events.shape[-1]
    if p:
      last = events[..., -1]
      both = last if guidance is None else jnp.concatenate([last, last])
      total = self.head.add(total, p - 1, both)
    logits = self.head.logits(total, p)
    if guidance is not None:
      logits = choose.guide(logits, guidance)
    legal = self.layout.legal(p, events, None if p else left)
    return total, choose.allow(logits, legal)
