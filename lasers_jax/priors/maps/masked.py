"""A prior that predicts many sites at once, given those that it sees."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.core.ranges import Amount, Count
from lasers_jax.errors import InputError, unknown
from lasers_jax.priors.maps import choose
from lasers_jax.priors.maps.base import Known
from lasers_jax.priors.maps.tokens import BIT, TokenPrior, embedding_init

ORDERS = ('halton', 'confidence')


@dataclasses.dataclass(frozen=True)
class MaskedDrawing(choose.TokenDrawing):
  """Settings by which masked sites are drawn.

  Attributes:
    steps: of drawing; after step i of n, a share cos(π i / 2n) of the sites is
      still masked, and a step draws one site at least.
    order: of the sites: 'halton', spread evenly over the map (V. Besnier et
      al., "Halton scheduler for masked generative image transformer", arXiv
      2503.17076), from a start that differs by image; 'confidence', the most
      probable draws first (H. Chang et al., "MaskGIT", arXiv 2202.04200).
    choice_temperature: of the Gumbel noise that is added to the logarithms of
      these probabilities: this times 1 - i/n.
  """

  steps: Count = 12
  order: str = 'halton'
  choice_temperature: Amount = 4.5

  def __post_init__(self):
    super().__post_init__()
    if self.order not in ORDERS:
      raise unknown('order', self.order, ORDERS)


class Masked(TokenPrior):
  """Models the events of masked sites, given those of all others.

  A transformer without a causal mask sees, of a masked site, an embedding of
  its own, and a head over planes (`tokens.DepthHead`) predicts its events.
  """

  EXACT = False
  Drawing = MaskedDrawing

  def setup(self):
    super().setup()
    self.mask = self.param('mask', embedding_init, (self.width,), jnp.float32)

  def check(self) -> None:
    """Raises InputError for fields out of range, or a code with `kept`."""
    super().check()
    if self.layout is not None and self.layout.kept is not None:
      raise InputError(
        'a masked prior cannot model a code that keeps a fixed number of sites '
        'of an image: use prior=ar'
      )

  def __call__(
    self, view: Array, labels: Array, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Returns the loss of each image [B], in bits a masked site.

    A share cos(πr/2) of the sites is masked, r ~ U[0, 1], and one at least.
    """
    labels = self.drop_labels(labels, train)
    key, key_of_sites = jax.random.split(self.make_rng('prior'))
    t, _ = self.shape
    r = jax.random.uniform(key, (len(view),))
    counts = jnp.round(t * jnp.cos(math.pi * r / 2))
    counts = jnp.maximum(counts, 1).astype(jnp.int32)
    masked = _first(jax.random.uniform(key_of_sites, (len(view), t)), counts)
    nats, losses = self._nats(view, labels, masked, train)

    def mean(x):
      return jnp.sum(jnp.where(masked, x.sum(-1), 0.0), axis=1) / counts / BIT

    return mean(losses), {'bits': jnp.mean(mean(nats))}

  def bits(self, view: Array, labels: Array) -> Array:
    """Returns one sample of an upper bound of -log2 p: [B, H, W, P].

    Of k ~ U{1, ..., T} masked sites, each has T/k times its bits, given the
    others; the sites that are seen have 0. The mean over samples, summed over
    the map, is at least -log2 p (E. Hoogeboom et al., "Autoregressive diffusion
    models", arXiv 2110.02037).
    """
    key, key_of_sites = jax.random.split(self.make_rng('prior'))
    t, _ = self.shape
    counts = jax.random.randint(key, (len(view),), 1, t + 1)
    masked = _first(jax.random.uniform(key_of_sites, (len(view), t)), counts)
    nats, _ = self._nats(view, labels, masked, False)
    weights = jnp.where(masked, t / counts[:, None] / BIT, 0.0)
    return (nats * weights[..., None]).reshape(view.shape)

  def draw(
    self,
    keys: Array,
    labels: Array,
    drawing: MaskedDrawing,
    known: Known | None = None,
  ) -> Array:
    """Draws events for each label, several sites a step; see `MapPrior`.

    Sites that are known are seen from the first step on.
    """
    return self.draw_steps(keys, labels, drawing, known)[0][-1]

  def draw_steps(
    self,
    keys: Array,
    labels: Array,
    drawing: MaskedDrawing,
    known: Known | None = None,
  ) -> tuple[Array, Array]:
    """Draws as `draw` does, and returns what each of n steps had drawn.

    Returns:
      events: int32 [n, B, H, W, P]. Sites that are still masked after a step
        have what it drew for them, and another one draws anew.
      seen: bool [n, B, H, W], False where a site is still masked.
    """
    (t, p), (events, seen) = self.shape, self.given(known, len(keys))
    steps = min(drawing.steps, t)
    unknown = jnp.sum(~seen, axis=1)
    starts = jax.vmap(lambda key: jax.random.randint(key, (), 0, t))(keys)
    ranks = (jnp.asarray(halton_ranks(*self.sites))[None] - starts[:, None]) % t
    labels = self.doubled(labels, drawing)

    def step(self, carry, i):
      events, seen = carry
      step_keys = choose.fold(keys, i)
      guidance = drawing.guidance_at(i.astype(jnp.float32) / steps)
      drawn, nats = self._draw_sites(
        step_keys, labels, guidance, carry, drawing
      )
      order = ranks.astype(jnp.float32)
      if drawing.order == 'confidence':
        noise = drawing.choice_temperature * (1 - (i + 1) / steps)
        order = nats - noise * _gumbel(choose.fold(step_keys, p), t)
      order = jnp.where(seen, -jnp.inf, order)
      now = _first(order, t - masked_after(i + 1, steps, unknown))
      # Of masked sites, only what the step draws is of any meaning.
      events = jnp.where(seen[..., None], events, drawn)
      return (events, now), (events, now)

    scan = nn.scan(
      step, variable_broadcast=('params', 'codebook'), length=steps
    )
    _, (events, seen) = scan(self, (events, seen), jnp.arange(steps))
    shape = steps, len(keys), *self.sites
    return events.reshape(*shape, p), seen.reshape(shape)

  def _draw_sites(self, keys, labels, guidance, carry, drawing):
    """Events [B, T, P] of all sites, and -ln p of each site [B, T]."""
    events, seen = carry
    if drawing.guided:
      events, seen = (jnp.concatenate([a, a]) for a in carry)
    h = self._outputs(events, labels, ~seen, False)
    return self.draw_events(keys, h, guidance, None, drawing)

  def _outputs(self, events, labels, masked, train):
    """Of the body, for events [B, T, P]: [B, T, w]."""
    x = jnp.where(masked[..., None], self.mask[None, None], self.embed(events))
    x = x + self.places[None] + self.labels(labels)[:, None]
    return self.body(x, self.positions, train=train)

  def _nats(self, view, labels, masked, train):
    """-ln p of each event, and its loss: [B, T, P]."""
    events = view.reshape(*masked.shape, -1)
    h = self._outputs(events, labels, masked, train)
    return self.head(h, events, None, self.smoothing, train)


def halton_ranks(height: int, width: int) -> np.ndarray:
  """Returns the rank of each site, in raster order: int32 [H·W].

  The order of a sequence of J. Halton (Numerische Mathematik 2, 1960) in bases
  2 and 3, by its first visit of each site. As many digits as tell the rows and
  the columns apart meet in all pairs, so each site has a visit.
  """
  rows, columns = _digits(height, 2), _digits(width, 3)
  numbers = np.arange(2**rows * 3**columns)
  row = _reversed(numbers, 2, rows) * height // 2**rows
  column = _reversed(numbers, 3, columns) * width // 3**columns
  sites, first = np.unique(row * width + column, return_index=True)
  ranks = np.empty(height * width, np.int32)
  ranks[sites[np.argsort(first)]] = np.arange(height * width)
  return ranks


def _digits(side, base):
  """The least number of digits that has `side` values."""
  return next(n for n in range(side) if base**n >= side) if side > 1 else 0


def _reversed(numbers, base, digits):
  """Numbers whose last digits stand in reverse."""
  result = np.zeros_like(numbers)
  for _ in range(digits):
    result = result * base + numbers % base
    numbers = numbers // base
  return result


def masked_after(i: Array, steps: int, sites: Array) -> Array:
  """Returns how many of `sites` are masked after i of the steps: int32.

  Each step draws one at least, while there are any.
  """
  share = jnp.cos(math.pi / 2 * i / steps)
  left = jnp.floor(sites * share).astype(jnp.int32)
  return jnp.maximum(jnp.minimum(left, sites - i), 0)


def _first(order, counts):
  """Which entries of order [B, T] are the least counts [B]; bool [B, T]."""
  ranks = jnp.argsort(jnp.argsort(order, axis=1), axis=1)
  return ranks < counts[:, None]


def _gumbel(keys, sites):
  return jax.vmap(lambda key: jax.random.gumbel(key, (sites,)))(keys)
