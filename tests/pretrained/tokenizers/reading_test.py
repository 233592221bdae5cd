"""Tokenizers of other projects give the numbers that they give there."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding import nearest_code
from lasers_jax.networks import NETWORKS
from lasers_jax.pretrained.tokenizers import read_tokenizer

_DATA = pathlib.Path(__file__).parents[4] / 'shared' / 'data' / 'pretrained'
RANDOM = _DATA / 'random'


def read(name):
  path = RANDOM / name
  if not path.exists():
    pytest.skip(f'{path} is not there')
  return read_tokenizer(path)


def networks(tokenizer):
  """Returns compiled functions of images in [0, 1], and of latents."""
  fields = dict(tokenizer.network)
  encoder, decoder = (kind(**fields) for kind in NETWORKS[fields.pop('name')])
  params = tokenizer.params
  encode = functools.partial(encoder.apply, {'params': params['encoder']})
  decode = functools.partial(decoder.apply, {'params': params['decoder']})
  return jax.jit(lambda x: encode(x - 0.5)), jax.jit(lambda z: decode(z) + 0.5)


@pytest.mark.parametrize('name', ['kl', 'kl16', 'vq', 'taming/last.ckpt'])
def test_latents_codes_and_images_are_those_of_the_source(name):
  tokenizer = read(name)
  encode, decode = networks(tokenizer)
  with np.load(RANDOM / name.split('/')[0] / 'golden.npz') as arrays:
    golden = dict(arrays)
  latents = golden['mean' if 'mean' in golden else 'latents']
  z = quantized = encode(golden['images'])
  np.testing.assert_allclose(z, latents, atol=2e-5)
  if tokenizer.codebook is not None:
    codes = nearest_code(z.reshape(-1, z.shape[-1]), tokenizer.codebook)
    np.testing.assert_array_equal(codes.reshape(z.shape[:3]), golden['indices'])
    quantized = jnp.asarray(tokenizer.codebook)[codes].reshape(z.shape)
  np.testing.assert_allclose(decode(quantized), golden['decoded'], atol=2e-5)


def test_scale_and_shift_are_those_of_the_config():
  found = read('kl16')
  np.testing.assert_array_equal(found.scale, np.full(16, 0.3611, np.float32))
  np.testing.assert_array_equal(found.shift, np.full(16, 0.1159, np.float32))
  found = read('vq')
  assert (set(found.scale), set(found.shift)) == ({1.0}, {0.0})
