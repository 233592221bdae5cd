"""Models that were trained here, as folders of diffusers."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import lasers_jax as lj
from tests.experiment.formats.drawn import IMAGES, made

CASES = {
  'none': {'name': 'none'},
  'kl': {'name': 'kl'},
  'vq': {'name': 'vq', 'K': 16},
}


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


@pytest.mark.parametrize(
  'bottleneck',
  [
    {'name': 'lasers', 'K': 16, 'S': 2},
    {'name': 'residual', 'depth': 2, 'inner': {'name': 'vq', 'K': 8}},
  ],
  ids=lambda x: x['name'],
)
def test_other_codes_are_decoded_by_a_gather_and_a_sum(bottleneck, tmp_path):
  model = made(bottleneck)
  model.export(tmp_path / 'out', format='diffusers')
  about = json.loads((tmp_path / 'out/bottleneck.json').read_text())
  arrays = load_file(tmp_path / 'out/bottleneck.safetensors')
  codes = model.encode(IMAGES)
  if about['kind'] == 'sparse':
    atoms, levels = codes
    rows = arrays['dictionary'][atoms] * arrays['levels'][levels][..., None]
    latents = arrays['offset'] + rows.sum(-2)
    assert (about['S'], about['sizes'], about['levels']) == (2, [16], 256)
  else:
    latents = sum(arrays[f'table_{i}'][x] for i, x in enumerate(codes))
    assert about['sizes'] == [8, 8]
  np.testing.assert_allclose(latents, model.latents(IMAGES), atol=1e-5)
  again = lj.load(f'diffusers:{tmp_path}/out')
  expected = model.decode(codes).astype(int)
  assert np.abs(again.decode_latents(latents) - expected).max() <= 1


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
    ('entropy', {}, 'is continuous: not Entropy'),
    ('none8', {}, 'requires no bottleneck.value_bits'),
    ('cosine', {}, "requires bottleneck.distance='euclidean'"),
  ],
)
def test_what_diffusers_cannot_hold(bottleneck, network, problem, tmp_path):
  more = {
    'entropy': {'name': 'entropy'},
    'none8': {'name': 'none', 'value_bits': 8},
    'cosine': {'name': 'vq', 'K': 16, 'distance': 'cosine'},
    'patches': {'name': 'vq', 'K': 16, 'patch': 2},
  }
  model = made((CASES | more)[bottleneck], **network)
  with pytest.raises(lj.InputError, match=problem):
    model.export(tmp_path / 'out', format='diffusers')
  assert not (tmp_path / 'out').exists()
