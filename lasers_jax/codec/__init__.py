"""Codes to bytes and back."""

from lasers_jax.codec.codec import Codec, fit_tables
from lasers_jax.codec.coder import range_coder
from lasers_jax.codec.container import unpack
from lasers_jax.codec.prices import prices
from lasers_jax.codec.state import State, load, load_kept, save
from lasers_jax.codec.tables import Tables

__all__ = [
  'Codec',
  'State',
  'Tables',
  'fit_tables',
  'load',
  'load_kept',
  'prices',
  'range_coder',
  'save',
  'unpack',
]
