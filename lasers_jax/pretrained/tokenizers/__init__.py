"""Tokenizers of other projects, read into the networks of this one."""

from lasers_jax.pretrained.tokenizers.reading import read_tokenizer
from lasers_jax.pretrained.tokenizers.tokenizer import Patches, Tokenizer

__all__ = ['Patches', 'Tokenizer', 'read_tokenizer']
