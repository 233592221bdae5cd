"""TAESD and its kin, in the files of their author and of diffusers."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import lasers_jax as lj
from lasers_jax.errors import InputError
from lasers_jax.networks import NETWORKS
from lasers_jax.pretrained.tokenizers import read_tokenizer
from tests.pretrained.torch_files import as_zip

_DATA = pathlib.Path(__file__).parents[4] / 'shared' / 'data'
D, C, POOL = 4, 8, 12
# What each layer is: a convolution (c), one that halves (h), one after a
# doubling (d), a block (b), with a pool (p), and what holds nothing (-).
LAYERS = {'encoder': 'cbhbbbhbbbhpppc', 'decoder': '-c-ppp-dbbb-dbbb-dbc'}
CONFIG = {
  '_class_name': 'AutoencoderTiny',
  'in_channels': 3,
  'latent_channels': D,
  'encoder_block_out_channels': [C] * 4,
  'decoder_block_out_channels': [C] * 4,
  'num_encoder_blocks': [1, 3, 3, 3],
  'num_decoder_blocks': [3, 3, 3, 1],
  'act_fn': 'relu',
  'scaling_factor': 1.0,
}


def drawn(pool=POOL):
  """Draws the arrays of both networks: {'encoder.0.weight': ...}."""
  rng, arrays = np.random.default_rng(0), {}

  def add(name, out, ins, size=3, bias=True):
    scale = (ins * size**2) ** -0.5
    weight = scale * rng.normal(size=(out, ins, size, size))
    arrays[f'{name}.weight'] = weight.astype(np.float32)
    if bias:
      arrays[f'{name}.bias'] = rng.normal(size=out).astype(np.float32) / 4

  for side, kinds in LAYERS.items():
    ends = {'encoder': (3, D), 'decoder': (D, 3)}[side]
    ins = ends[0]
    for i, kind in enumerate(kinds):
      name = f'{side}.{i}'
      if kind in 'chd':
        out = ends[1] if i == len(kinds) - 1 else C
        add(name, out, ins, bias=kind == 'c')
        ins = C
      if kind in 'bp':
        for j in 0, 2, 4:
          add(f'{name}.conv.{j}', C, C)
      if kind == 'p' and pool:
        add(f'{name}.pool.0', pool, C, 1, bias=False)
        add(f'{name}.pool.1', pool, 1, 1)
        arrays[f'{name}.pool.1.weight'] = arrays[f'{name}.pool.1.weight'][
          :, 0, 0, 0
        ]
        add(f'{name}.pool.3', C, pool, 1, bias=False)
  return arrays


def reference(arrays, side, x):
  """Applies the layers one by one, as torch.nn.Sequential does."""

  def conv(name, x, stride=1):
    kernel = arrays[f'{name}.weight']
    padding = kernel.shape[-1] // 2
    x = jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      [(padding, padding)] * 2,
      dimension_numbers=('NHWC', 'OIHW', 'NHWC'),
    )
    bias = arrays.get(f'{name}.bias', np.zeros(x.shape[-1], np.float32))
    return np.asarray(x) + bias

  def pool(name, x):
    h = conv(f'{name}.0', x)
    groups = h.reshape(*h.shape[:3], 4, -1)
    groups = groups - groups.mean((1, 2, 4), keepdims=True)
    variance = (groups**2).mean((1, 2, 4), keepdims=True)
    h = (groups / np.sqrt(variance + 1e-5)).reshape(h.shape)
    h = h * arrays[f'{name}.1.weight'] + arrays[f'{name}.1.bias']
    return x + conv(f'{name}.3', np.maximum(h, 0))

  if side == 'decoder':
    x = np.tanh(x / 3) * 3
  for i, kind in enumerate(LAYERS[side]):
    name = f'{side}.{i}'
    if kind == 'd':
      x = x.repeat(2, 1).repeat(2, 2)
    if kind in 'chd':
      x = conv(name, x, 2 if kind == 'h' else 1)
      x = np.maximum(x, 0) if name == 'decoder.1' else x
    if f'{name}.pool.0.weight' in arrays:
      x = pool(f'{name}.pool', x)
    if kind in 'bp':
      h = x
      for j in 0, 2, 4:
        h = conv(f'{name}.conv.{j}', np.maximum(h, 0) if j else h)
      x = np.maximum(h + x, 0)
  return x


def halves(arrays, folder):
  """Writes an encoder and a decoder as their author does."""
  for side in LAYERS:
    half = {
      name.removeprefix(f'{side}.'): array
      for name, array in arrays.items()
      if name.startswith(side)
    }
    (folder / f'tae_{side}.pth').write_bytes(as_zip(half))
  return folder / 'tae_encoder.pth', folder / 'tae_decoder.pth'


def of_diffusers(arrays, folder, config=CONFIG):
  def new(name):
    side, number, rest = name.split('.', 2)
    return f'{side}.layers.{int(number) - (side == "decoder")}.{rest}'

  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  named = {new(name): array for name, array in arrays.items()}
  save_file(named, folder / 'diffusion_pytorch_model.safetensors')
  return folder


def test_both_networks_are_those_of_the_layers(tmp_path):
  arrays = drawn()
  tokenizer = read_tokenizer(halves(arrays, tmp_path)[0])
  fields = dict(tokenizer.network)
  assert fields == {'name': 'tiny', 'D': D, 'channels': C, 'pool': POOL}
  encoder, decoder = (kind(**fields) for kind in NETWORKS[fields.pop('name')])
  images = np.random.default_rng(1).random((2, 24, 40, 3), np.float32)
  params = tokenizer.params
  z = jax.jit(encoder.apply)({'params': params['encoder']}, images - 0.5)
  expected = reference(arrays, 'encoder', images)
  np.testing.assert_allclose(z, expected, atol=2e-5)
  made = jax.jit(decoder.apply)({'params': params['decoder']}, z) + 0.5
  expected = reference(arrays, 'decoder', expected)
  np.testing.assert_allclose(made, expected, atol=2e-5)


@pytest.mark.parametrize('pool', [0, POOL])
def test_all_files_of_one_tokenizer_are_the_same(pool, tmp_path):
  arrays = drawn(pool)
  encoder, decoder = halves(arrays, tmp_path)
  save_file(arrays, tmp_path / 'both.safetensors')
  files = encoder, decoder, tmp_path / 'both.safetensors'
  found = [read_tokenizer(file) for file in files]
  if not pool:  # which the class has not
    found.append(read_tokenizer(of_diffusers(arrays, tmp_path / 'folder')))
  for other in found[1:]:
    jax.tree.map(np.testing.assert_array_equal, other.params, found[0].params)
    assert other.network == found[0].network
  assert found[0].hash == found[1].hash
  assert found[0].source == found[1].source == str(encoder)


def test_what_does_not_fit_is_named(tmp_path):
  encoder, decoder = halves(drawn(), tmp_path)
  decoder.unlink()
  with pytest.raises(InputError, match='is half of a tokenizer, and the other'):
    read_tokenizer(encoder)
  encoder.rename(tmp_path / 'weights.pth')
  with pytest.raises(InputError, match='is half of a tokenizer, and the other'):
    read_tokenizer(tmp_path / 'weights.pth')
  arrays = drawn(0)
  name = 'decoder.layers.17.conv.2.weight'
  folder = of_diffusers(
    {k: x for k, x in arrays.items() if k != 'decoder.18.conv.2.weight'},
    tmp_path / 'folder',
  )
  with pytest.raises(InputError, match=f'lack the array {name}'):
    read_tokenizer(folder)
  more = arrays | {'decoder.20.weight': np.ones(3, np.float32)}
  with pytest.raises(InputError, match='decoder.layers.19.weight has no place'):
    read_tokenizer(of_diffusers(more, tmp_path / 'folder'))
  config = CONFIG | {'num_decoder_blocks': [3, 3, 3, 3]}
  with pytest.raises(InputError, match='says num_decoder_blocks='):
    read_tokenizer(of_diffusers(arrays, tmp_path / 'folder', config))


@pytest.mark.parametrize(
  'file, expected',
  [
    ('taef2_decoder.pth', 33.342),
    ('vaelight_sd1.safetensors', 25.93),
  ],
)
@pytest.mark.slow
def test_the_quality_of_published_weights(file, expected, as_in_use):
  path, picture = _DATA / 'pretrained' / file, _DATA / 'kodak' / 'kodim23.png'
  if not (path.exists() and picture.exists()):
    pytest.skip(f'{path} or {picture} is not there')
  with Image.open(picture) as opened:
    image = np.asarray(opened.convert('RGB'))
  model = lj.load(path)
  copy = as_in_use(model.module.apply)(model.variables, image[None] / 255)
  copy = np.round(255 * np.clip(copy.images[0], 0, 1))
  error = np.mean((copy - image) ** 2)
  assert 10 * np.log10(255**2 / error) == pytest.approx(expected, abs=0.02)
