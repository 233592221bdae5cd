"""Encoders and decoders, by name. Pairs take the same fields and share `f`."""

from lasers_jax.networks.block import BlockDecoder, BlockEncoder
from lasers_jax.networks.light import LightDecoder, LightEncoder
from lasers_jax.networks.maskgit import MaskGITDecoder, MaskGITEncoder
from lasers_jax.networks.resnet import ResNetDecoder, ResNetEncoder
from lasers_jax.networks.tiny import TinyDecoder, TinyEncoder
from lasers_jax.networks.vector import VectorDecoder, VectorEncoder
from lasers_jax.networks.vqvae import VQVAEDecoder, VQVAEEncoder

NETWORKS = {
  'vqvae': (VQVAEEncoder, VQVAEDecoder),
  'resnet': (ResNetEncoder, ResNetDecoder),
  'vector': (VectorEncoder, VectorDecoder),
  'block': (BlockEncoder, BlockDecoder),
  'maskgit': (MaskGITEncoder, MaskGITDecoder),
  'tiny': (TinyEncoder, TinyDecoder),
  'light': (LightEncoder, LightDecoder),
}

__all__ = [
  'NETWORKS',
  'BlockDecoder',
  'BlockEncoder',
  'LightDecoder',
  'LightEncoder',
  'MaskGITDecoder',
  'MaskGITEncoder',
  'ResNetDecoder',
  'ResNetEncoder',
  'TinyDecoder',
  'TinyEncoder',
  'VQVAEDecoder',
  'VQVAEEncoder',
  'VectorDecoder',
  'VectorEncoder',
]
