"""A prior that predicts sites one after the other, in raster order."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lasers_jax.priors.maps import choose
from lasers_jax.priors.maps.base import Known
from lasers_jax.priors.maps.tokens import BIT, TokenPrior
from lasers_jax.priors.maps.transformer import Cache


class Walk(NamedTuple):
  """Where a walk over the sites of images stands: before one of them.

  Attributes:
    before: [B, w], embedding of the site before it, or of the class.
    cache: of the sites before it.
    left: int32 [B, 2], see `Layout.legal`; None for most codes.
  """

  before: Array
  cache: Cache
  left: Array | None


class Autoregressive(TokenPrior):
  """Models p(events) as a product over sites and planes: its bits are exact.

  A causal transformer over sites, whose input j is the embedding of site j - 1
  (of the class for the first) at the position of site j, and a head over planes
  (`tokens.DepthHead`).
  """

  EXACT = True

  def __call__(
    self, view: Array, labels: Array, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Returns the loss of each image [B], in bits a site; see `MapPrior`."""
    labels = self.drop_labels(labels, train)
    nats, losses = self._nats(view, labels, train)
    per_site = BIT * nats.shape[1]
    stats = {'bits': jnp.mean(jnp.sum(nats, axis=(1, 2))) / per_site}
    return jnp.sum(losses, axis=(1, 2)) / per_site, stats

  def bits(self, view: Array, labels: Array) -> Array:
    """Returns -log2 p of each event, given those before it: [B, H, W, P]."""
    nats, _ = self._nats(view, labels, False)
    return nats.reshape(view.shape) / BIT

  def draw(
    self,
    keys: Array,
    labels: Array,
    drawing: choose.TokenDrawing,
    known: Known | None = None,
  ) -> Array:
    """Draws events for each label, site by site; see `MapPrior`.

    A site that is known is given to the sites after it; those before it are
    drawn without it.
    """
    return self._drawn(keys, labels, drawing, known)[0]

  def _drawn(self, keys, labels, drawing, known):
    """A draw [B, H, W, P], and -ln p of what was drawn at each site [B, T]."""
    (t, _), given = self.shape, self.given(known, len(keys))
    labels = self.doubled(labels, drawing)
    numbers = jnp.arange(t)
    steps = (
      numbers,
      drawing.guidance_at(numbers.astype(jnp.float32) / t),
      *(jnp.moveaxis(a, 1, 0) for a in given),
    )

    def site(self, walk, step):
      return self._draw_site(keys, drawing, walk, step)

    scan = nn.scan(site, variable_broadcast=('params', 'codebook'), length=t)
    start = self.begin(labels, self._left_at_start(given))
    _, (events, nats) = scan(self, start, steps)
    events = jnp.moveaxis(events, 0, 1)
    return events.reshape(len(keys), *self.sites, -1), nats.T

  def _draw_site(self, keys, drawing, walk, step):
    """One step of the scan over sites: events [B, P], and -ln p [B]."""
    j, guidance, view, is_known = step
    h, walk = self.enter(walk, j)
    keys = choose.fold(keys, j)
    drawn, nats = self.draw_events(keys, h, guidance, walk.left, drawing)
    events = jnp.where(is_known[:, None], view, drawn)
    return self.advance(walk, events, ~is_known), (events, nats)

  def begin(self, labels: Array, left: Array | None = None) -> Walk:
    """Returns the walk before the first site.

    Args:
      labels: int32 [B].
      left: see `Walk`; None counts all sites.
    """
    t, _ = self.shape
    if left is None and self.layout.kept is not None:
      left = jnp.tile(jnp.array([self.layout.kept, t]), (len(labels), 1))
    cache = self.body.empty_cache(len(labels), t)
    return Walk(self.labels(labels), cache, left)

  def enter(self, walk: Walk, j: Array) -> tuple[Array, Walk]:
    """Returns the output of the body for site j [B, w], and the walk in it.

    `event_logits` predicts the events of the site from it.
    """
    x = walk.before + self.places[j][None]
    h, cache = self.body.step(x, self.positions[0, j], j, walk.cache)
    return h, walk._replace(cache=cache)

  def advance(
    self, walk: Walk, events: Array, counted: Array | bool = True
  ) -> Walk:
    """Returns the walk after a site with events int32 [n, P].

    The walk of B = 2n images is of two for each, with the class and without.

    Args:
      counted: bool [n], whether the site is one of those that `left` counts.
    """
    left = walk.left
    if left is not None:
      taken = jnp.stack([events[:, 0], jnp.ones_like(events[:, 0])], axis=-1)
      left = left - jnp.where(jnp.reshape(counted, (-1, 1)), taken, 0)
    before = self.embed(events)
    if len(walk.before) == 2 * len(events):
      before = jnp.concatenate([before, before])
    return Walk(before, walk.cache, left)

  def _outputs(self, events, labels, train):
    """Of the body, for events [B, T, P]: [B, T, w]."""
    t, _ = self.shape
    first = self.labels(labels)[:, None]
    x = jnp.concatenate([first, self.embed(events[:, :-1])], axis=1)
    x = x + self.places[None]
    causal = jnp.tril(jnp.ones((t, t), bool))
    return self.body(x, self.positions, causal, train=train)

  def _nats(self, view, labels, train):
    """-ln p of each event, and its loss: [B, T, P]."""
    events = view.reshape(len(view), *self.shape)
    h = self._outputs(events, labels, train)
    left = self.layout.left(view)
    if left is not None:
      left = left.reshape(*events.shape[:2], 2)
    return self.head(h, events, left, self.smoothing, train)

  def _left_at_start(self, given):
    """What `Layout.legal` asks of the first site to be drawn: int32 [B, 2].

    As `Layout.left`, but of the sites that are not known.
    """
    if self.layout.kept is None:
      return None
    view, is_known = given
    kept = jnp.sum(jnp.where(is_known, view[..., 0], 0), axis=1)
    left = jnp.sum(~is_known, axis=1)
    return jnp.stack([self.layout.kept - kept, left], axis=-1)
