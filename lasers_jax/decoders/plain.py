"""Decoding in one pass."""

from lasers_jax.decoders.base import Decoder


class Plain(Decoder):
  """Decodes by the network alone: no further losses, nothing random."""
