"""Encoders and decoders, by name. Pairs take the same fields and share `f`."""

from lasers_jax.networks.resnet import ResNetDecoder, ResNetEncoder
from lasers_jax.networks.vector import VectorDecoder, VectorEncoder
from lasers_jax.networks.vqvae import VQVAEDecoder, VQVAEEncoder

NETWORKS = {
  'vqvae': (VQVAEEncoder, VQVAEDecoder),
  'resnet': (ResNetEncoder, ResNetDecoder),
  'vector': (VectorEncoder, VectorDecoder),
}

__all__ = [
  'NETWORKS',
  'ResNetDecoder',
  'ResNetEncoder',
  'VQVAEDecoder',
  'VQVAEEncoder',
  'VectorDecoder',
  'VectorEncoder',
]
