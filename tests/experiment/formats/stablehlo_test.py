"""Models as programs of StableHLO, which are read without this project."""

import functools
import json

import jax
import numpy as np
import pytest
from jax import export

import lasers_jax as lj
from lasers_jax.experiment.formats.stablehlo import PLATFORMS
from tests.experiment.formats.drawn import IMAGES, VQVAE, made

CASES = {
  'vq': {'name': 'vq', 'K': 16},
  'patches': {'name': 'vq', 'K': 16, 'patch': 2},
  'lasers': {'name': 'lasers', 'K': 16, 'S': 2},
  'residual': {'name': 'residual', 'depth': 2, 'inner': {'name': 'vq'}},
  'none': {'name': 'none'},
}


def programs(folder):
  return (
    export.deserialize(bytearray((folder / f'{x}.stablehlo').read_bytes()))
    for x in ('encode', 'decode')
  )


@pytest.mark.parametrize('name', CASES)
def test_programs_give_the_codes_and_the_images(name, tmp_path):
  network = {} if name == 'vq' else VQVAE  # resnet takes longer
  model, images = made(CASES[name], **network), IMAGES[:, :, :16]
  model.export(tmp_path / 'out', format='stablehlo')
  encode, decode = programs(tmp_path / 'out')
  apply = jax.jit(functools.partial(model.module.apply, method='decode'))
  assert encode.platforms == decode.platforms == PLATFORMS
  assert sorted(x.name for x in (tmp_path / 'out').iterdir()) == [
    'config.json',
    'decode.stablehlo',
    'encode.stablehlo',
  ]
  for batch in images, images[:1]:
    found, expected = encode.call(batch), model.encode(batch)
    for x, y in zip(found, jax.tree.leaves(expected), strict=True):
      if y.dtype == np.float32:
        np.testing.assert_allclose(x, y, atol=1e-6)
      else:
        np.testing.assert_array_equal(x, y)
    decoded = apply(model.variables, expected)
    np.testing.assert_allclose(
      decode.call(*jax.tree.leaves(expected)), decoded, atol=1e-6
    )


def test_the_config_names_what_goes_in_and_out(tmp_path):
  model = made(CASES['lasers'], **VQVAE)
  model.export(tmp_path / 'out', format='stablehlo', side=32)
  config = json.loads((tmp_path / 'out/config.json').read_text())
  images = {
    'name': 'images',
    'shape': ['b', 32, 32, 3],
    'dtype': 'float32',
  }
  shape = ['b', 8, 8, 2]
  codes = [
    {'name': name, 'shape': shape, 'dtype': 'int32'}
    for name in ('atoms', 'coefficients')
  ]
  assert config['encode'] == {'inputs': [images], 'outputs': codes}
  assert config['decode'] == {'inputs': codes, 'outputs': [images]}
  assert (config['side'], config['weights']) == (32, model.weights)
  assert config['bottleneck']['S'] == 2
  encode, _ = programs(tmp_path / 'out')
  assert encode.call(np.zeros((3, 32, 32, 3), np.float32))[0].shape[0] == 3


def test_latent_statistics_travel_along(tmp_path, monkeypatch):
  model = made(CASES['vq'], **VQVAE)
  found = {'mean': [0.0, 1.0, 2.0, 3.0], 'deviation': [0.0, 1.0, 1.0, 1.0]}
  monkeypatch.setattr(type(model), 'statistics', lambda self: found)
  model.export(tmp_path / 'out', format='stablehlo')
  config = json.loads((tmp_path / 'out/config.json').read_text())
  assert config['latents_mean'] == found['mean']
  assert config['latents_std'] == [1e-6, 1.0, 1.0, 1.0]


@pytest.mark.parametrize('side', [0, -2, 17])
def test_sides_that_cannot_be(side, tmp_path):
  with pytest.raises(lj.InputError, match=f'side is {side}: it must be a mult'):
    made(CASES['vq']).export(tmp_path / 'out', format='stablehlo', side=side)
  assert not (tmp_path / 'out').exists()
