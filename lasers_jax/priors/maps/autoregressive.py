"""A prior that predicts sites one after the other, in raster order."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lasers_jax.priors.maps import choose
from lasers_jax.priors.maps.base import Known
from lasers_jax.priors.maps.tokens import BIT, TokenPrior


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
    left = self._left_at_start(given)
    carry = self.labels(labels), self.body.empty_cache(len(labels), t), left
    steps = (
      jnp.arange(t),
      self.positions[0],
      self.places,
      drawing.guidance_at(jnp.arange(t, dtype=jnp.float32) / t),
      *(jnp.moveaxis(a, 1, 0) for a in given),
    )

    def site(self, carry, step):
      return self._draw_site(keys, drawing, carry, step)

    scan = nn.scan(site, variable_broadcast='params', length=t)
    _, (events, nats) = scan(self, carry, steps)
    events = jnp.moveaxis(events, 0, 1)
    return events.reshape(len(keys), *self.sites, -1), nats.T

  def _draw_site(self, keys, drawing, carry, step):
    """One step of the scan over sites: events [B, P], and -ln p [B]."""
    before, cache, left = carry
    j, position, place, guidance, view, is_known = step
    x = before + place[None]
    h, cache = self.body.step(x, position, j, cache)
    keys = choose.fold(keys, j)
    drawn, nats = self.draw_events(keys, h, guidance, left, drawing)
    events = jnp.where(is_known[:, None], view, drawn)
    if left is not None:
      taken = jnp.stack([events[:, 0], jnp.ones_like(events[:, 0])], axis=-1)
      left = left - jnp.where(is_known[:, None], 0, taken)
    both = jnp.concatenate([events, events]) if drawing.guided else events
    return (self.embed(both), cache, left), (events, nats)

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
