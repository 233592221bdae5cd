"""From quantized latents to images: the contract, one pass, and diffusion.

A decoder of your own is a class (see `Decoder`) and a line of the table:

  DECODERS['mine'] = Mine

and a config then asks for it with `decoder.name='mine'`.
"""

from lasers_jax.decoders.base import (
  Decoder,
  Draw,
  SamplingSettings,
  TrainingSettings,
)
from lasers_jax.decoders.diffusion import Diffusion
from lasers_jax.decoders.plain import Plain

DECODERS: dict[str, type[Decoder]] = {'plain': Plain, 'diffusion': Diffusion}
# The section `decoder` of a config that has none.
DEFAULT = {'name': 'plain'}

__all__ = [
  'DECODERS',
  'DEFAULT',
  'Decoder',
  'Diffusion',
  'Draw',
  'Plain',
  'SamplingSettings',
  'TrainingSettings',
]
