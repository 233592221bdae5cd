"""Sparse codes with a price: integers over a dictionary, error against bits.

As `Lasers`, latents are coded by atoms of a dictionary; but how many atoms a
site takes follows from a price of their bits, and all coefficients are integers
times one step, which a file holds in few bits. The dictionary is [I | E]: the
channels themselves, which the linear maps of encoder and decoder may turn as
they like, and extra atoms. The pursuit is that of `coding.priced`. Without
extras it is the rate-distortion optimized quantization of video codecs, with
a geometric law for each channel.
"""

from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Latent,
  codebook_losses,
  like_sites,
  relative_error,
  site_mean,
  use_stats,
)
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.integers import Limit, Stepped
from lasers_jax.bottlenecks.parts import Parts
from lasers_jax.coding.priced import (
  geometric_bits,
  priced_integers,
  priced_pursuit,
)
from lasers_jax.coding.search import linear
from lasers_jax.core.ranges import Amount, Decay, Whole

# Laws are known for steps of these powers of two, and between them by their
# logarithms.
_OCTAVES = range(-8, 4)
_RAREST = 0.01  # mean |q|: no atom is taken to be used less
_ROUNDS = 4  # of the start: laws follow from codes, and codes from laws


class Priced(Stepped):
  """Codes each site by integers q of a low |z - quantized|² + λ step² bits.

  quantized = mean + step · [I | E] q. The bits of q_k are those of a two-sided
  geometric law of the mean |q_k|, a moving average of training; one for each
  octave of steps.

  Losses: `commitment`, mean |z - sg(q)|², which reaches the encoder alone, and
  `dictionary`, mean |sg(z) - q|², which reaches E alone. As q minimizes error
  plus price, the gradient of the minimum is that of the error with q held
  (envelope theorem): so the two losses are error + λ · rate, with nothing to
  weigh but against `pixel`. Its own weight times D / 3f² makes both errors of
  pixels where the decoder is orthonormal.

  Attributes:
    extras: atoms of E, of unit norm. Without, each channel is coded by itself.
    decay: of the moving averages.
  """

  loss_weights: ClassVar = {'dictionary': 10.0, 'commitment': 10.0}
  held = True

  limit: Limit = 127
  price: Amount = 0.15
  extras: Whole = 0
  decay: Decay = 0.99

  def setup(self):
    self.check()
    if self.extras:
      shape = self.D, self.extras
      self.declare('params', 'dictionary', coding.random_dictionary, shape)
    zeros = (jnp.zeros, (self.D,), jnp.float32)
    self.mean = self.variable('codebook', 'mean', *zeros)
    # Mean |step q| by octaves of the step.
    ones = (jnp.ones, (len(_OCTAVES), self.planes), jnp.float32)
    self.sizes = self.variable('codebook', 'sizes', *ones)

  @property
  def planes(self) -> int:
    return self.D + self.extras

  def atoms(self) -> Array:
    """Returns one step along each atom: [D + extras, 1, 1, D]."""
    return self.step * self._dictionary().T[:, None, None]

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    exact = z.astype(jnp.float32)
    steps = self._steps(exact, train)
    codes = self._code(lax.stop_gradient(exact), steps)
    quantized = self._read(codes, steps)
    losses = codebook_losses(exact, quantized, mask, 'dictionary')
    stats = self._stats(codes, steps, mask)
    stats['relative_error'] = relative_error(exact, quantized, mask)
    if self.tracks(train):  # last, since it changes what the code depends on
      self._track(lax.stop_gradient(exact), codes, steps, mask)
    quantized = quantized.astype(z.dtype)
    if train:
      quantized = straight_through(z, quantized)
    return Latent(quantized, codes, losses, stats)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [..., D + extras], in [-limit, limit]."""
    exact = z.astype(jnp.float32)
    return self._code(exact, self._steps(exact, False))

  def decode(self, codes: Array) -> Array:
    """Turns integers [..., D + extras] into latents float32 [..., D]."""
    return self._read(codes, self._steps(codes, False))

  def parts(self, codes: Array) -> Parts:
    names = (('channel', self.D), ('atom', self.extras))
    found = super().parts(codes)
    return found._replace(rest=self.mean.value, names=names)

  def initialize(self, z: Array) -> None:
    """Takes the mean, the laws and extra atoms of a first batch.

    Atoms are what some sites are coded by, each channel in units of its usual
    size: channels that occur together. They start rare.
    """
    rows = z.reshape(-1, self.D).astype(jnp.float32)
    self.mean.value = jnp.mean(rows, axis=0)
    rows -= self.mean.value[None]
    octaves = 2.0 ** jnp.array(_OCTAVES, jnp.float32)[:, None, None]
    means = jnp.mean(jnp.abs(rows[None]) / octaves, axis=1, keepdims=True)
    for _ in range(_ROUNDS):
      q = priced_integers(rows[None] / octaves, self._prices(means), self.limit)
      means = jnp.mean(jnp.abs(q), axis=1, keepdims=True, dtype=jnp.float32)
    rare = jnp.full((len(_OCTAVES), 1, self.extras), _RAREST, jnp.float32)
    means = jnp.concatenate([means, rare], axis=2)
    self.sizes.value = (octaves * means)[:, 0]
    if self.extras:
      codes = self._code(rows + self.mean.value[None], self._steps(rows, False))
      usual = self._means(self._steps(rows, False))[..., : self.D]
      signals = codes[:, : self.D] / usual
      key = self.make_rng('bottleneck')
      picked = coding.pick_signals(key, signals, self.extras)
      atoms = coding.normalize_atoms(picked.T)
      self.put_variable('params', 'dictionary', atoms)

  def _steps(self, sites: Array, train: bool) -> Array:
    """The step of each image: [..., 1, 1, 1]."""
    once = jnp.ones((1,) * sites.ndim, jnp.float32)
    return self.step * (self._draw_times(sites) if train else once)

  @property
  def chooses(self) -> bool:
    return super().chooses and not self.extras

  def _in_steps(self, z: Array) -> Array:
    return super()._in_steps(z - like_sites(self.mean.value, z))

  def _code(self, z: Array, steps: Array) -> Array:
    signals = (z - like_sites(self.mean.value, z)) / steps
    prices = self._prices(self._means(steps))
    if not self.extras:
      return priced_integers(signals, prices, self.limit)
    shape = *z.shape[:-1], self.planes
    codes = priced_pursuit(
      signals.reshape(-1, self.D),
      self._dictionary(),
      jnp.broadcast_to(prices, shape).reshape(-1, self.planes),
      self.limit,
    )
    return codes.reshape(shape)

  def _read(self, codes: Array, steps: Array) -> Array:
    q = codes.astype(jnp.float32)
    found = q[..., : self.D]
    if self.extras:
      rows = q[..., self.D :].reshape(-1, self.extras)
      found += linear(rows, self._extras().T).reshape(found.shape)
    return like_sites(self.mean.value, found) + steps * found

  def _extras(self) -> Array:
    """E, normalized: averaged weights are not."""
    return coding.normalize_atoms(self.get_variable('params', 'dictionary'))

  def _dictionary(self) -> Array:
    channels = jnp.eye(self.D, dtype=jnp.float32)
    if not self.extras:
      return channels
    return jnp.concatenate([channels, self._extras()], axis=1)

  def _means(self, steps: Array) -> Array:
    """Mean |q| at steps [..., 1]: [..., planes]."""
    octaves = 2.0 ** jnp.array(_OCTAVES, jnp.float32)[:, None]
    sizes = jnp.log(jnp.maximum(self.sizes.value, _RAREST * octaves))
    near = _near(steps)[..., None]
    sizes = sizes.reshape((1,) * (near.ndim - 2) + sizes.shape)
    means = jnp.exp(jnp.sum(near * sizes, axis=-2)) / steps
    return jnp.maximum(means, _RAREST)

  def _prices(self, means: Array) -> Array:
    """What one more unit of |q| costs, in squared steps."""
    _, unit = geometric_bits(jnp.maximum(means, _RAREST))
    return self.price * unit

  def _stats(self, codes: Array, steps: Array, mask: Array | None):
    _, stats = use_stats(self.indices(codes), self.symbols, mask)
    zero, unit = geometric_bits(self._means(steps))
    bits = jnp.sum(zero + unit * jnp.abs(codes), axis=-1)
    stats['bits'] = site_mean(bits, mask)
    atoms = jnp.sum(codes != 0, axis=-1, dtype=jnp.float32)
    stats['atoms'] = site_mean(atoms, mask)
    return stats

  def _track(self, z, codes, steps, mask) -> None:
    """Moves the mean and the laws of the octaves in use."""
    counted = jnp.ones(z.shape[:-1], jnp.float32) if mask is None else mask
    counted = counted[..., None].astype(jnp.float32)
    total = jnp.maximum(jnp.sum(counted), 1)
    sites = tuple(range(z.ndim - 1))
    change = jnp.sum(counted * z, axis=sites) / total - self.mean.value
    self.mean.value += (1 - self.decay) * change
    near = (counted * _near(steps)).reshape(-1, len(_OCTAVES))
    sizes = (steps * jnp.abs(codes)).reshape(-1, self.planes)
    weights = jnp.sum(near, axis=0)[:, None]
    found = jnp.einsum('no,nk->ok', near, sizes, precision='highest')
    found /= jnp.maximum(weights, 1e-6)
    rate = 1 - self.decay ** (weights / total)
    self.sizes.value += rate * (found - self.sizes.value)


def _near(steps: Array) -> Array:
  """How near steps [..., 1] are to each octave: [..., O], of sum 1."""
  octave = jnp.clip(jnp.log2(steps), _OCTAVES[0], _OCTAVES[-1])
  octaves = jnp.array(_OCTAVES, jnp.float32)
  return jnp.maximum(0.0, 1 - jnp.abs(octave - like_sites(octaves, steps)))
