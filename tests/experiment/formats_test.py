"""Models that were trained here, as folders of diffusers."""

import jax
import numpy as np
import pytest

import lasers_jax as lj
from lasers_jax.core import sharding
from lasers_jax.experiment import settings
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.training.state import evaluation_variables, state_shapes

NETWORK = {
  'name': 'resnet',
  'D': 4,
  'channels': 8,
  'multipliers': (1, 2),
  'blocks': 1,
  'attention': (2,),
  'groups': 4,
  'downsample': 'conv3',
}
CASES = {
  'none': {'name': 'none'},
  'kl': {'name': 'kl'},
  'vq': {'name': 'vq', 'K': 16},
}


def made(bottleneck, **network):
  """A model with random weights of which each counts."""
  config = {
    'steps': 1,
    'batch_size': 2,
    'data': {'name': 'given', 'side': 16},
    'network': NETWORK | network,
    'bottleneck': bottleneck,
  }
  experiment = settings.from_config(config)
  shapes = state_shapes(
    experiment.model, settings.build_learners(experiment)[0], 16
  )
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    deviation = 0.3 if len(leaf.shape) < 3 else np.prod(leaf.shape[:-1]) ** -0.5
    array = rng.normal(0, deviation, leaf.shape).astype(np.float32)
    return 1 + array if 'scale' in str(path[-1]) else array

  variables = jax.tree_util.tree_map_with_path(
    draw, evaluation_variables(shapes)
  )
  mesh = experiment.evaluation_mesh()
  variables = jax.device_put(variables, sharding.replicated(mesh))
  return TrainedModel(experiment, variables, config, mesh, 0, '')


IMAGES = np.random.default_rng(1).random((2, 16, 24, 3), np.float32)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('from_latent', [0, 4])
def test_a_folder_of_diffusers_is_read_again(name, from_latent, tmp_path):
  model = made(CASES[name], from_latent=from_latent)
  model.export(tmp_path / 'out', format='diffusers')
  again = lj.load(f'diffusers:{tmp_path}/out')
  if name == 'kl':
    z = model.latents(IMAGES)
    np.testing.assert_allclose(again.latents(IMAGES), z, atol=1e-5)
    return
  ours, theirs = jax.device_get((model.variables, again.variables))
  jax.tree.map(np.testing.assert_array_equal, theirs['params'], ours['params'])
  if name == 'vq':
    np.testing.assert_array_equal(
      theirs['codebook']['bottleneck']['codes'],
      ours['codebook']['bottleneck']['codes'],
    )
  again.export(tmp_path / 'twice', format='diffusers')
  for file in 'config.json', 'diffusion_pytorch_model.safetensors':
    twice = (tmp_path / 'twice' / file).read_bytes()
    assert twice == (tmp_path / 'out' / file).read_bytes()


def test_a_decoder_of_another_width_behind_a_codebook(tmp_path):
  model = made(CASES['vq'], from_latent=6)
  model.export(tmp_path / 'out', format='diffusers')
  again = lj.load(f'diffusers:{tmp_path}/out')
  ours, theirs = jax.device_get((model.variables, again.variables))
  jax.tree.map(np.testing.assert_array_equal, theirs['params'], ours['params'])


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_images_are_those_of_the_classes_of_diffusers(name, tmp_path):
  diffusers, torch = map(pytest.importorskip, ('diffusers', 'torch'))
  model = made(CASES[name])
  model.export(tmp_path / 'out', format='diffusers')
  kind = diffusers.VQModel if name == 'vq' else diffusers.AutoencoderKL
  theirs = kind.from_pretrained(tmp_path / 'out').eval()
  x = torch.from_numpy(2 * IMAGES - 1).permute(0, 3, 1, 2)
  with torch.no_grad():
    found = theirs.encode(x)
    z = found.latents if name == 'vq' else found.latent_dist.mode()
    if name == 'none':
      assert float(found.latent_dist.std.max()) < 1e-6
    y = theirs.decode(z).sample.permute(0, 2, 3, 1).numpy() / 2 + 0.5
  ours = model.module.apply(model.variables, IMAGES).images
  np.testing.assert_allclose(ours, y, atol=1e-5)


@pytest.mark.parametrize(
  'bottleneck, network, problem',
  [
    ('none', {'downsample': 'conv4'}, "requires network.downsample='conv3'"),
    ('none', {'groups': 32}, 'requires channels that 32 groups divide'),
    ('none', {'multipliers': (2, 2)}, 'multipliers that begin with 1'),
    ('none', {'decoder_channels': 16}, 'requires no network.decoder_channels'),
    ('none', {'from_latent': 6}, 'requires network.from_latent of 0 or D'),
    ('vq', {'from_latent': 2}, 'requires network.from_latent of 0 or D'),
    ('patches', {}, 'requires bottleneck.patch=1'),
    ('fsq', {}, 'none and kl, without value_bits, and vq: not fsq'),
    ('none8', {}, 'none and kl, without value_bits, and vq: not none'),
    ('cosine', {}, "requires bottleneck.distance='euclidean'"),
  ],
)
def test_what_diffusers_cannot_hold(bottleneck, network, problem, tmp_path):
  more = {
    'fsq': {'name': 'fsq', 'levels': (3, 3, 3, 3)},
    'none8': {'name': 'none', 'value_bits': 8},
    'cosine': {'name': 'vq', 'K': 16, 'distance': 'cosine'},
    'patches': {'name': 'vq', 'K': 16, 'patch': 2},
  }
  model = made((CASES | more)[bottleneck], **network)
  with pytest.raises(lj.InputError, match=problem):
    model.export(tmp_path / 'out', format='diffusers')
  assert not (tmp_path / 'out').exists()


def test_folders_and_formats(tmp_path):
  model = made(CASES['none'])
  with pytest.raises(lj.InputError, match='format is .onnx.*diffusers'):
    model.export(tmp_path / 'out', format='onnx')
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'a').touch()
  with pytest.raises(lj.InputError, match='full is not empty'):
    model.export(tmp_path / 'full', format='diffusers')
  with pytest.raises(lj.InputError, match='half and licence are not of'):
    model.export(tmp_path / 'out', format='diffusers', half=True)
