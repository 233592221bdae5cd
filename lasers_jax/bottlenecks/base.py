"""The contract that bottlenecks share, their statistics and losses."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.coder import Coder, Sites, transfer_plane
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.parts import Parts
from lasers_jax.bottlenecks.rates import Asked, Fields
from lasers_jax.core.ranges import Count, Decay, Several, Whole, check_fields
from lasers_jax.errors import InputError

MOST_CODES = 2**18  # of one codebook that is solved for


class Latent(flax.struct.PyTreeNode):
  """Holds the code of the encoder's output, with losses and statistics."""

  quantized: Array  # [..., D], what the decoder receives
  codes: Any  # a pytree of arrays: exactly what would be stored
  losses: dict[str, Array]  # scalars, named and unweighted
  stats: dict[str, Array]  # scalars for the log


class Bottleneck(nn.Module):
  """Codes latents `z`, channels last, with any leading dimensions.

      module = VQ(D=16, K=512)
      variables = start(module, z, jax.random.key(0))
      codes = module.apply(variables, z, method='encode')
      quantized = module.apply(variables, codes, method='decode')

  This is the contract. A subclass defines `encode`, `decode` and
  `__call__(z, train, mask=None)`, where `mask`, bool [..., H, W], says which
  sites count in losses, statistics and learning (the others are padding, and
  coded all the same). A subclass with a discrete code also defines
  `bits_per_site`, `symbols`, `indices`, `at_rate` and `transfer`, and `parts`
  where its codes add something up; one that learns atoms or codes also
  `initialize` and `revive`. Gradients touch `params` alone; statistics live in
  the collection `codebook`, which is written only in training. Random draws
  take the key stream `bottleneck`.

  Attributes:
    CHOICES: the words that a field may be, where it is one of a few.
    loss_weights: of its losses, unless a config gives others.
    held: whether the gradient of the decoder passes by the parameters that
      `decode` reads, as it does where it goes straight through to z.
    adjustable: fields that may change after training, since nothing that was
      learned depends on them.
    counted_by: the field that says how many `parts` a site has, where the first
      ones alone are a code as well.
    D: width of a latent vector.
    K: atoms or codes of a codebook; a field of those that have one.
    revive_every: steps from one `revive` to the next; 0 never.
  """

  CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}
  loss_weights: ClassVar[Mapping[str, float]] = {}
  adjustable: ClassVar[tuple[str, ...]] = ()
  counted_by: ClassVar[str] = ''
  held: ClassVar[bool] = False

  D: Count = 16
  K = 0
  revive_every = 0

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    """Returns the fields with which a site costs the bits asked for.

    Raises:
      ValueError: there are none; the message says why.
    """
    raise ValueError(f'{asked.bits} bits a site: {cls.__name__} has no rate')

  @property
  def bits_per_site(self) -> float | None:
    """Returns the bits of a site, of fixed length; None if continuous."""
    return None

  @property
  def symbols(self) -> int:
    """Returns how many values `indices` may take; 0 if continuous."""
    return self.K

  def map_bits(self, height: int, width: int) -> float | None:
    """Returns the bits of a map of height x width sites; None if continuous."""
    bits = self.bits_per_site
    return None if bits is None else bits * height * width

  def grid(self, height: int, width: int) -> tuple[int, int]:
    """Returns the sides of the grid of codes of a map of sites."""
    return height, width

  def crop(self, codes: Any, height: int, width: int) -> Any:
    """Returns the codes of the top left height x width sites of a padded map.

    Args:
      codes: of one map, coded with a mask of these sites; NumPy arrays.
    """
    rows, columns = self.grid(height, width)
    return jax.tree.map(lambda x: x[:rows, :columns], codes)

  def check(self) -> None:
    """Raises ValueError if fields are out of range or contradict each other."""
    check_fields(self)
    for field, choices in self.CHOICES.items():
      value = getattr(self, field)
      if value not in choices:
        raise ValueError(f'{field} must be one of {choices}: {value!r}')

  def atoms(self) -> Array:
    """Returns the latents of single atoms or codes: [M, 1, 1, D]."""
    return jnp.zeros((0, 1, 1, self.D), jnp.float32)

  def indices(self, codes: Any) -> Array:
    """Returns the atoms or codes in use: int32 in [0, symbols)."""
    return codes

  def parts(self, codes: Any) -> Parts | None:
    """Returns what the code of each site adds up; None if it is no sum."""
    return None

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> Any:
    """Leads a coder through the codes of one image, and returns them.

    Args:
      coder: counts, weighs, writes or reads.
      sites: H and W of the latent.
      codes: of `encode` for a latent [H, W, D], as NumPy arrays; None for a
        reader.
      name: the prefix of the names of tables.

    Raises:
      InputError: the code is continuous.
    """
    raise continuous(self)

  def energies(self, name: str = '') -> dict[str, np.ndarray]:
    """Returns how much each pair of an atom and a level adds to a latent.

    For priors, which code the strongest pair of a site first. It is computed in
    NumPy, outside jit, so that an order by it is the same on every machine.

    Args:
      name: as in `transfer`.

    Returns:
      float32 [K, L], by the name of each `Coder.pairs` that `transfer` calls;
      pairs that are missing here have no order of their own.
    """
    del name
    return {}

  @property
  def chooses(self) -> bool:
    """Returns whether `choose` may choose integers by the bits of a file."""
    return False

  def choices(self, z: Array) -> Array:
    """Returns what each integer of the codes of z may be: int32 [n, ...]."""
    raise NotImplementedError

  def choose(self, z: Array, values: Array, bits: Array) -> Array:
    """Returns the codes of z of the lowest error plus price of bits.

    Args:
      values: of `choices`.
      bits: float32, of each value.
    """
    raise NotImplementedError

  def initialize(self, z: Array) -> None:
    """Starts from a first batch; writes `params` and `codebook`."""

  def revive(self, z: Array) -> None:
    """Replaces dead atoms after a step; writes `params` and `codebook`."""

  def declare(self, home: str, name: str, init: Callable, shape: tuple) -> None:
    """Creates an array drawn by `init(key, shape)` in a collection.

    Whether it is a parameter or a statistic, it is read by `get_variable` and
    written by `put_variable`.
    """
    if home == 'params':
      self.param(name, init, shape)
    else:
      self.variable(home, name, lambda: init(self.make_rng('params'), shape))

  def tracks(self, train: bool) -> bool:
    """Says whether statistics are to be written."""
    mutable = self.is_mutable_collection('codebook')
    return train and mutable and not self.is_initializing()


def start(module: Bottleneck, z: Array, key: Array) -> dict[str, Any]:
  """Draws the variables of a bottleneck, and lets it start from data.

  Args:
    z: [..., D], a first batch.
    key: of all draws.
  """
  draw, fit = jax.random.split(key)
  variables = module.init(draw, z, train=False)
  _, fitted = module.apply(
    variables,
    z,
    method='initialize',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': fit},
  )
  return {**variables, **fitted}


def continuous(bottleneck: Bottleneck) -> InputError:
  """Returns the error for files of a code that is continuous."""
  name = type(bottleneck).__name__
  return InputError(f'{name} has a continuous code, which no file holds')


class LookUp(Bottleneck):
  """Codes each site by one of K codes, and decodes it by look-up.

  A subclass has `codes` [K, D], or defines `_codes`.

  Attributes:
    K: codes.
  """

  K: Several = 512

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    bits = asked.bits
    if 2**bits > MOST_CODES:
      raise ValueError(
        f'{bits} bits a site are 2^{bits} codes, and at most {MOST_CODES:,} '
        'fit; copies of it may meet them (residual, product)'
      )
    return {'K': 2**bits}

  @property
  def bits_per_site(self) -> float:
    return fixed_length_bits(self.K)

  def atoms(self) -> Array:
    return self._codes()[:, None, None]

  def decode(self, codes: Array) -> Array:
    """Looks up codes [...]: float32 [..., D]."""
    return self._codes()[codes]

  def parts(self, codes: Array) -> Parts:
    rows, once = self._codes(), jnp.ones((*codes.shape, 1), jnp.float32)
    rest = jnp.zeros(self.D, jnp.float32)
    return Parts(codes[..., None], once, rows, rest, (('code', len(rows)),))

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> np.ndarray:
    return transfer_plane(coder, name, codes, sites, self.K)

  def _codes(self) -> Array:
    """Returns what the codes stand for: [K, D]."""
    return self.codes

  def _coded(
    self, z: Array, train: bool, mask: Array | None
  ) -> tuple[Latent, Array]:
    """Codes z with the straight-through gradient and the usual two losses.

    Returns:
      The forward pass, and the use of the codes [K], as of `use_stats`.
    """
    codes = self.encode(lax.stop_gradient(z))
    quantized = self.decode(codes)
    exact = z.astype(jnp.float32)
    losses = codebook_losses(exact, quantized, mask)
    use, stats = use_stats(codes, self.K, mask)
    stats['relative_error'] = relative_error(exact, quantized, mask)
    quantized = quantized.astype(z.dtype)
    if train:
      quantized = straight_through(z, quantized)
    return Latent(quantized, codes, losses, stats), use

  def _signals(self, z: Array) -> Array:
    """Returns the sites of z [..., D]: float32 [N, D]."""
    return z.reshape(-1, self.D).astype(jnp.float32)


class Codebook(Bottleneck):
  """Codes by K atoms or codes that die and are revived: a base class.

  Attributes:
    revive_below: an atom is dead below this fraction of the mean use.
    revive_limit: atoms revived at once, at most.
    decay: of the moving average of use.
  """

  K: Count = 512
  revive_every: Whole = 50
  revive_below: Decay = 0.02
  revive_limit: Count = 16
  decay: Decay = 0.99


def fixed_length_bits(k: int) -> int:
  """Returns the bits of an index in [0, K), each of the same length."""
  return math.ceil(math.log2(k))


def use_stats(
  indices: Array, k: int, mask: Array | None = None
) -> tuple[Array, dict[str, Array]]:
  """Counts the codes of a batch, and returns statistics of their use.

  Args:
    indices: int32 [..., G], in [0, K); or [...], one for each site.
    k: how many values they may take.
    mask: bool [...], the sites that count.

  Returns:
    The counts [K] scaled to a mean of 1, and the statistics `usage`, the
    fraction of codes in use, and `perplexity`, the exponential of their
    entropy: both of this batch, so bounded by its number of sites.
  """
  weights = jnp.ones(indices.shape, jnp.float32)
  if mask is not None:
    extra = indices.ndim - mask.ndim
    weights *= mask.reshape(mask.shape + (1,) * extra)
  counts = coding.histogram(indices, k, weights)
  p = counts / jnp.maximum(jnp.sum(counts), 1e-30)
  entropy = -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-30)))
  usage = jnp.mean(counts > 0, dtype=jnp.float32)
  stats = {'usage': usage, 'perplexity': jnp.exp(entropy)}
  return p * k, stats


def site_mean(values: Array, mask: Array | None = None) -> Array:
  """Averages over the sites [...] that count, and over all other axes.

  Args:
    values: [..., any], of each site.
    mask: bool [...], the sites that count; None for all.
  """
  if mask is None:
    return jnp.mean(values)
  extra = values.ndim - mask.ndim
  values = jnp.mean(values, axis=tuple(range(mask.ndim, mask.ndim + extra)))
  return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1)


def codebook_losses(
  z: Array,
  quantized: Array,
  mask: Array | None = None,
  name: str = 'codebook',
) -> dict[str, Array]:
  """Returns the loss of a name, mean |sg(z) - q|², and `commitment`.

  The latter is mean |z - sg(q)|².
  """
  return {
    name: site_mean((quantized - lax.stop_gradient(z)) ** 2, mask),
    'commitment': site_mean((z - lax.stop_gradient(quantized)) ** 2, mask),
  }


def relative_error(
  z: Array, quantized: Array, mask: Array | None = None
) -> Array:
  """Returns the fraction of the energy of z that a code loses, in [0, inf)."""
  error = site_mean((z - quantized) ** 2, mask)
  return error / (site_mean(z**2, mask) + 1e-20)


def like_sites(row: Array, sites: Array) -> Array:
  """Gives a row [D] the rank of sites [..., D]."""
  return row.reshape((1,) * (sites.ndim - 1) + row.shape)
