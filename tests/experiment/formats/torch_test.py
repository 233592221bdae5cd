"""Models as a module of PyTorch, against the model itself."""

import dataclasses
import functools
import importlib.util

import jax
import numpy as np
import pytest

import lasers_jax as lj
from lasers_jax.bottlenecks.continuous import Numbers
from tests.experiment.formats.drawn import IMAGES, VQVAE, made

NETWORKS = {
  'resnet': {},
  'conv4': {'downsample': 'conv4', 'multipliers': (2, 1, 2), 'groups': 32},
  'widths': {
    'decoder_channels': 4,
    'from_latent': 6,
    'middle_attention': False,
    'blocks': 0,
  },
  'vqvae': VQVAE,
  'halving': VQVAE | {'f': 2},
  'eighth': VQVAE | {'f': 8, 'residual_blocks': 0},
}
SPARSE = {'name': 'lasers', 'K': 16, 'S': 3}
BOTTLENECKS = {
  'none': {'name': 'none'},
  'patches': {'name': 'none', 'patch': 2},
  'kl': {'name': 'kl'},
  'kl of patches': {'name': 'kl', 'patch': 2},
  'vq': {'name': 'vq', 'K': 16},
  'cosine': {'name': 'vq', 'K': 16, 'distance': 'cosine'},
  'simvq': {'name': 'simvq', 'K': 16},
  'fsq': {'name': 'fsq', 'levels': (3, 4)},
  'residual': {
    'name': 'residual',
    'depth': 3,
    'patch': 2,
    'inner': {'name': 'vq', 'K': 8},
  },
  'product': {
    'name': 'product',
    'groups': 2,
    'inner': {'name': 'fsq', 'levels': (3, 4)},
  },
  'lasers': SPARSE,
  'online': SPARSE | {'learning': 'online', 'patch': 2},
  'exact': SPARSE | {'coefficient_bits': None},
  'rounded': SPARSE | {'coefficient_bits': 2, 'pursuit': 'rounded'},
}


def loaded(folder):
  """The module of a folder, which its own file makes."""
  for name in ('torch', 'safetensors.torch'):
    pytest.importorskip(name, reason='PyTorch is not installed')
  spec = importlib.util.spec_from_file_location('model', folder / 'model.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.load(folder)


def standardized(model):
  """The model with a shift and a scale of latents, as of a tokenizer."""
  module = model.module.clone(standardized=True)
  packing = {
    'shift': np.array([0.5, -1.0, 0.0, 2.0], np.float32),
    'scale': np.array([0.5, 2.0, 1.5, 1.0], np.float32),
  }
  codebook = {**model.variables.get('codebook', {}), 'packing': packing}
  return dataclasses.replace(
    model,
    experiment=dataclasses.replace(model.experiment, model=module),
    variables={**model.variables, 'codebook': codebook},
  )


def both(model, folder):
  """Of a model and of its module: z, and latents and images of one code."""
  import torch

  model.export(folder, format='torch')
  module = loaded(folder)
  codes = model.encode(IMAGES)
  given = [torch.from_numpy(np.array(x)) for x in jax.tree.leaves(codes)]
  with torch.no_grad():
    z = module.encode(torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    images = module.decode(*given)
    latents = module.look_up(*given)
  found = [x.permute(0, 2, 3, 1).numpy() for x in (z, latents, images)]
  apply = functools.partial(model.module.apply, model.variables)
  z = apply(IMAGES).z
  if isinstance(model.module.bottleneck, Numbers):  # then `encode` codes, too
    z = apply(z, method='quantize')
  latents, decoded = (apply(codes, method=x) for x in ('look_up', 'decode'))
  return zip((z, latents, decoded), found, strict=True)


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_give_the_same_latents_and_images(name, tmp_path):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  model = made({'name': 'none'}, **NETWORKS[name])
  for ours, theirs in both(model, tmp_path / 'out'):
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize('name', BOTTLENECKS)
def test_bottlenecks_decode_the_same(name, tmp_path):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  model = made(BOTTLENECKS[name], **VQVAE)
  if 'patch' in BOTTLENECKS[name]:
    model = standardized(model)
  for ours, theirs in both(model, tmp_path / 'out'):
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize(
  'bottleneck, network, problem',
  [
    ({'name': 'none'}, {'name': 'tiny', 'D': 4}, 'resnet and vqvae, not Tiny'),
    ({'name': 'none', 'value_bits': 4}, VQVAE, 'is continuous: not Identity'),
    ({'name': 'entropy'}, VQVAE, 'is continuous: not Entropy'),
    ({'name': 'scq', 'K': 16}, VQVAE, 'is continuous: not SCQ'),
  ],
)
def test_what_the_module_has_not(bottleneck, network, problem, tmp_path):
  model = made(bottleneck, **network)
  with pytest.raises(lj.InputError, match=problem):
    model.export(tmp_path / 'out', format='torch')
  assert not (tmp_path / 'out').exists()
