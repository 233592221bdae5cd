"""Bottlenecks between encoder and decoder, behind one contract."""

from lasers_jax.bottlenecks.base import Bottleneck, Latent, start
from lasers_jax.bottlenecks.binary import BSQ, LFQ
from lasers_jax.bottlenecks.continuous import KL, Identity
from lasers_jax.bottlenecks.cvq import CVQ
from lasers_jax.bottlenecks.entropy import Entropy
from lasers_jax.bottlenecks.fsq import FSQ
from lasers_jax.bottlenecks.hypervq import HyperVQ
from lasers_jax.bottlenecks.ibq import IBQ
from lasers_jax.bottlenecks.lasers import Lasers
from lasers_jax.bottlenecks.lattice import Lattice
from lasers_jax.bottlenecks.lista import Lista
from lasers_jax.bottlenecks.mqvae import MQVAE
from lasers_jax.bottlenecks.priced import Priced
from lasers_jax.bottlenecks.regularized import RAE, WAE, InfoVAE
from lasers_jax.bottlenecks.scq import SCQ
from lasers_jax.bottlenecks.simvq import SimVQ
from lasers_jax.bottlenecks.vq import VQ
from lasers_jax.bottlenecks.wrappers import Product, Residual

BOTTLENECKS: dict[str, type[Bottleneck]] = {
  'lasers': Lasers,
  'priced': Priced,
  'vq': VQ,
  'simvq': SimVQ,
  'ibq': IBQ,
  'cvq': CVQ,
  'hypervq': HyperVQ,
  'fsq': FSQ,
  'lfq': LFQ,
  'bsq': BSQ,
  'lattice': Lattice,
  'entropy': Entropy,
  'residual': Residual,
  'product': Product,
  'mqvae': MQVAE,
  'scq': SCQ,
  'lista': Lista,
  'kl': KL,
  'none': Identity,
  'wae': WAE,
  'info_vae': InfoVAE,
  'rae': RAE,
}

__all__ = [
  'BOTTLENECKS',
  'BSQ',
  'CVQ',
  'FSQ',
  'IBQ',
  'KL',
  'LFQ',
  'MQVAE',
  'RAE',
  'SCQ',
  'VQ',
  'WAE',
  'Bottleneck',
  'Entropy',
  'HyperVQ',
  'Identity',
  'InfoVAE',
  'Lasers',
  'Latent',
  'Lattice',
  'Lista',
  'Priced',
  'Product',
  'Residual',
  'SimVQ',
  'start',
]
