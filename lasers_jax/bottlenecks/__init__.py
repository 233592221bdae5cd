"""What stands between encoder and decoder, behind one contract."""

from lasers_jax.bottlenecks.base import Bottleneck, Latent
from lasers_jax.bottlenecks.lasers import Lasers
from lasers_jax.bottlenecks.vq import VQ

BOTTLENECKS: dict[str, type[Bottleneck]] = {'lasers': Lasers, 'vq': VQ}

__all__ = ['BOTTLENECKS', 'Bottleneck', 'Latent', 'Lasers', 'VQ']
