"""What every bottleneck shares: the contract, and the straight-through step."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding


@flax.struct.dataclass
class Latent:
  """What a bottleneck makes of the encoder's output."""

  quantized: Array  # [..., D], what the decoder receives
  codes: Any  # a pytree of arrays: exactly what would be stored
  losses: dict[str, Array]  # scalars, named and unweighted
  stats: dict[str, Array]  # scalars for the log


class Bottleneck(nn.Module):
  """The contract: `z` is channels last, with any leading dimensions.

  A subclass defines `encode`, `decode`, `__call__(z, train)`, `bits_per_site`,
  `indices`, and, where it has atoms or codes to learn, `initialize` and
  `revive`. Gradients touch `params` alone; statistics live in the collection
  `codebook`, which is written only in training. Random draws take the key
  stream `bottleneck`.

  Attributes:
    D: width of a latent vector.
    K: atoms or codes.
    revive_every: steps from one `revive` to the next; 0 never.
    revive_below: an atom is dead below this share of the mean use.
    revive_limit: atoms revived at once, at most.
  """

  D: int = 16
  K: int = 512
  revive_every: int = 50
  revive_below: float = 0.02
  revive_limit: int = 16

  @property
  def bits_per_site(self) -> float | None:
    """Bits of fixed length for a site; None where codes are continuous."""
    return None

  @property
  def patch_side(self) -> int:
    """Side of the square of sites that one code covers."""
    return 1

  def check(self) -> None:
    """Raises ValueError where the fields contradict each other."""

  def atoms(self) -> Array:
    """What one atom or code stands for at a usual size: [K, p, p, D]."""
    raise NotImplementedError

  def indices(self, codes: Any) -> Array:
    """Returns the atoms or codes in use, int32 with values in [0, K)."""
    return codes

  def initialize(self, z: Array) -> None:
    """Sets up what learns from data; writes `params` and `codebook`."""

  def revive(self, z: Array) -> None:
    """Replaces dead atoms after a step; writes `params` and `codebook`."""

  def declare(self, home: str, name: str, init: Callable, shape: tuple) -> None:
    """Creates an array drawn by `init(key, shape)` in a collection.

    It is read by `get_variable` and written by `put_variable`: the same way
    whether it is a parameter or a statistic.
    """
    if home == 'params':
      self.param(name, init, shape)
    else:
      self.variable(home, name, lambda: init(self.make_rng('params'), shape))

  def tracks(self, train: bool) -> bool:
    """Whether statistics are to be written."""
    mutable = self.is_mutable_collection('codebook')
    return train and mutable and not self.is_initializing()


def straight_through(z: Array, quantized: Array) -> Array:
  """Passes `quantized` forwards, and the gradient back to `z` unchanged."""
  # The usual z + sg(quantized - z) rounds, in bfloat16 visibly; this adds zero.
  return lax.stop_gradient(quantized) + (z - lax.stop_gradient(z))


def fixed_length_bits(k: int) -> int:
  """Bits of an index in [0, K) when each takes the same number of bits."""
  return math.ceil(math.log2(k))


def use_stats(indices: Array, k: int) -> tuple[Array, dict[str, Array]]:
  """Counts the codes of a batch.

  Returns:
    The counts [K] scaled to a mean of 1, and the statistics `usage`, the share
    of codes in use, and `perplexity`, the exponential of their entropy: both
    of this batch, so bounded by its number of sites.
  """
  counts = coding.histogram(indices, k)
  p = counts / jnp.sum(counts)
  entropy = -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-30)))
  stats = {'usage': jnp.mean(counts > 0), 'perplexity': jnp.exp(entropy)}
  return p * k, stats


def relative_error(z: Array, quantized: Array) -> Array:
  """The share of the energy of z that the code loses, in [0, inf)."""
  return jnp.sum((z - quantized) ** 2) / (jnp.sum(z**2) + 1e-20)
