"""Codes to bytes and back."""

from lasers_jax.codec.codec import (
  Codec,
  fit_tables,
  hash_of,
  load_tables,
  save_tables,
)
from lasers_jax.codec.coder import Meter, Tables
from lasers_jax.codec.container import unpack
from lasers_jax.codec.layout import transfer

__all__ = [
  'Codec',
  'Meter',
  'Tables',
  'fit_tables',
  'hash_of',
  'load_tables',
  'save_tables',
  'transfer',
  'unpack',
]
