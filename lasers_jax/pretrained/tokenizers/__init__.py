"""Tokenizers of other projects, read into the networks of this one."""

from lasers_jax.pretrained.tokenizers.reading import read_tokenizer
from lasers_jax.pretrained.tokenizers.tokenizer import (
  SCHEME,
  Patches,
  Tokenizer,
)

__all__ = ['SCHEME', 'Patches', 'Tokenizer', 'read_tokenizer']
