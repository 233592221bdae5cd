"""The networks of diffusers give the same numbers, where it is installed."""

import functools

import jax
import numpy as np
import pytest

from lasers_jax.coding import nearest_code
from lasers_jax.networks import NETWORKS
from lasers_jax.pretrained.tokenizers import read_tokenizer

diffusers = pytest.importorskip('diffusers')
torch = pytest.importorskip('torch')
pytestmark = pytest.mark.slow

DOWN, UP = ['DownEncoderBlock2D'] * 4, ['UpDecoderBlock2D'] * 4
SMALL = {
  'block_out_channels': (32, 32, 64, 64),
  'down_block_types': DOWN,
  'up_block_types': UP,
  'layers_per_block': 1,
}
ATTENDING = {
  'down_block_types': [*DOWN[:3], 'AttnDownEncoderBlock2D'],
  'up_block_types': ['AttnUpDecoderBlock2D', *UP[:3]],
}
MODELS = {
  'kl': ('AutoencoderKL', SMALL),
  'bare': (
    'AutoencoderKL',
    SMALL
    | {
      'use_quant_conv': False,
      'use_post_quant_conv': False,
      'mid_block_add_attention': False,
      'norm_num_groups': 8,
      'latent_channels': 16,
    },
  ),
  'vq': ('VQModel', SMALL | ATTENDING | {'vq_embed_dim': 4}),
  'tiny': (
    'AutoencoderTiny',
    {
      'encoder_block_out_channels': (8,) * 4,
      'decoder_block_out_channels': (8,) * 4,
    },
  ),
}


@functools.cache
def made(name):
  """A model with random weights, of which each counts."""
  kind, fields = MODELS[name]
  torch.manual_seed(0)
  model = getattr(diffusers, kind)(**fields).eval()
  with torch.no_grad():
    for weight in model.parameters():
      weight += (0.1 if weight.ndim == 1 else 0.03) * torch.randn_like(weight)
  return model


@torch.no_grad()
def theirs(model, images):
  """Latents, what is decoded of them, and the images in [0, 1]."""
  x = torch.from_numpy(2 * images - 1).permute(0, 3, 1, 2)
  found = model.encode(x)
  if isinstance(model, diffusers.AutoencoderKL):
    z = found.latent_dist.mode()
  else:
    z = found.latents
  decoded = model.decode(z).sample
  last = lambda x: x.permute(0, 2, 3, 1).numpy()  # noqa: E731
  return last(z), last(decoded) / 2 + 0.5


@pytest.mark.parametrize('name', MODELS)
def test_latents_and_images_are_those_of_the_class(name, tmp_path):
  made(name).save_pretrained(tmp_path)
  tokenizer = read_tokenizer(tmp_path)
  fields = dict(tokenizer.network)
  encoder, decoder = (kind(**fields) for kind in NETWORKS[fields.pop('name')])
  # At odd sides of the latent, paddings of one side show.
  images = np.random.default_rng(0).random((1, 40, 56, 3), np.float32)
  params = tokenizer.params
  z = jax.jit(encoder.apply)({'params': params['encoder']}, images - 0.5)
  latents, decoded = theirs(made(name), images)
  np.testing.assert_allclose(z, latents, atol=2e-5)
  quantized = latents
  if tokenizer.codebook is not None:
    codes = nearest_code(latents.reshape(-1, 4), tokenizer.codebook)
    quantized = tokenizer.codebook[codes].reshape(latents.shape)
  made_here = jax.jit(decoder.apply)({'params': params['decoder']}, quantized)
  np.testing.assert_allclose(made_here + 0.5, decoded, atol=2e-5)
  print(
    '\n', name, abs(z - latents).max(), abs(made_here + 0.5 - decoded).max()
  )
