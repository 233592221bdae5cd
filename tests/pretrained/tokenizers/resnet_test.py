"""The same networks under other names; arrays that do not fit are named."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from lasers_jax.errors import InputError
from lasers_jax.pretrained.tokenizers import read_tokenizer
from lasers_jax.pretrained.tokenizers.arrays import expected
from lasers_jax.pretrained.weights import read_weights
from tests.pretrained.torch_files import as_zip

_DATA = pathlib.Path(__file__).parents[4] / 'shared' / 'data' / 'pretrained'
FILE = 'diffusion_pytorch_model.safetensors'
OLD = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}


def source(name):
  """Returns the arrays and the config of a random model."""
  folder = _DATA / 'random' / name
  if not folder.exists():
    pytest.skip(f'{folder} is not there')
  config = json.loads((folder / 'config.json').read_text())
  file = 'last.ckpt' if name == 'taming' else FILE
  return read_weights(folder / file), config


def folder_of(arrays, config, path):
  path.mkdir(exist_ok=True)
  (path / 'config.json').write_text(json.dumps(config))
  save_file(arrays, path / FILE)
  return path


def assert_same(found, expected):
  assert found.network == expected.network
  jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def renamed(arrays, words):
  def new(name):
    for old, word in words.items():
      name = name.replace(f'.{old}.', f'.{word}.')
    return name

  return {new(name): array for name, array in arrays.items()}


@pytest.mark.parametrize('rank', [2, 3, 4])
@pytest.mark.parametrize('words', [{}, OLD], ids=['new', 'old'])
def test_attention_has_two_kinds_of_names_and_three_of_shapes(
  rank, words, tmp_path
):
  arrays, config = source('vq')
  whole = read_tokenizer(folder_of(arrays, config, tmp_path))
  shaped = {
    name: x.reshape(*x.shape, *[1] * (rank - 2))
    if '.to_' in name and x.ndim == 2
    else x
    for name, x in arrays.items()
  }
  found = folder_of(renamed(shaped, words), config, tmp_path)
  assert_same(read_tokenizer(found), whole)


@pytest.mark.parametrize('prefix', ['first_stage_model.', 'vae.'])
def test_a_tokenizer_within_a_larger_model(prefix, tmp_path):
  arrays, _ = source('taming')
  (tmp_path / 'a.ckpt').write_bytes(as_zip(arrays))
  inside = {prefix + name: x for name, x in arrays.items()}
  other = {'model.diffusion_model.out.weight': np.ones(3, np.float32)}
  (tmp_path / 'b.ckpt').write_bytes(as_zip({'state_dict': inside | other}))
  found = read_tokenizer(tmp_path / 'b.ckpt')
  assert_same(found, read_tokenizer(tmp_path / 'a.ckpt'))
  assert found.bottleneck == {'name': 'vq', 'K': 32}


def test_a_bare_file_is_read_by_its_shapes(tmp_path):
  arrays, config = source('kl')
  whole = read_tokenizer(folder_of(arrays, config, tmp_path))
  found = read_tokenizer(tmp_path / FILE)
  assert_same(found, whole)
  assert (set(found.scale), set(found.shift)) == ({1.0}, {0.0})
  assert found.hash != whole.hash


def test_the_hash_is_that_of_the_contents(tmp_path):
  arrays, config = source('kl')
  a, b = (folder_of(arrays, config, tmp_path / x) for x in 'ab')
  found = [read_tokenizer(x) for x in (a, b)]
  assert found[0].hash == found[1].hash
  assert (found[0].source, found[1].source) == (str(a), str(b))
  folder_of(arrays | {'encoder.conv_in.bias': np.ones(32, 'f')}, config, b)
  assert read_tokenizer(b).hash != found[0].hash


def as_flux2(arrays):
  """The arrays as the authors of FLUX.2 name some, and statistics."""
  rng = np.random.default_rng(0)
  inside = {'quant_conv': 'encoder.', 'post_quant_conv': 'decoder.'}
  named = {inside.get(n.split('.')[0], '') + n: x for n, x in arrays.items()}
  return named | {
    'bn.running_mean': rng.normal(size=16).astype(np.float32),
    'bn.running_var': rng.uniform(1, 2, size=16).astype(np.float32),
    'bn.num_batches_tracked': np.array(7),
  }


def test_the_statistics_of_patches(tmp_path):
  arrays, config = source('kl')
  config |= {'_class_name': 'AutoencoderKLFlux2', 'batch_norm_eps': 0.5}
  found = read_tokenizer(folder_of(as_flux2(arrays), config, tmp_path))
  mean, variance, _ = list(as_flux2(arrays).values())[-3:]
  assert found.patches.side == 2
  np.testing.assert_array_equal(found.patches.shift, mean)
  np.testing.assert_allclose(found.patches.scale, (variance + 0.5) ** -0.5)
  # Numbers with these means and variances at each position of a patch.
  signs = np.array([-1, 1])[:, None]
  drawn = mean + signs * np.sqrt(variance + 0.5)
  drawn = drawn.reshape(2, 4, 4).transpose(0, 2, 1).reshape(8, 4)
  np.testing.assert_allclose(found.shift, drawn.mean(0), rtol=1e-5)
  np.testing.assert_allclose(found.scale, 1 / drawn.std(0), rtol=1e-5)


def test_means_and_deviations_of_channels(tmp_path):
  arrays, config = source('kl')
  mean, std = [1.0, -2.0, 0.5, 0.0], [8.0, 5.0, 2.0, 1.0]
  config |= {'latents_mean': mean, 'latents_std': std, 'scaling_factor': 0.5}
  found = read_tokenizer(folder_of(arrays, config, tmp_path))
  np.testing.assert_allclose(found.shift, mean)
  np.testing.assert_allclose(found.scale, 0.5 / np.array(std))


CONTRADICTIONS = {
  'latent_channels': (8, '4'),
  'block_out_channels': ([32, 64, 64], '[32, 32, 64]'),
  'layers_per_block': (2, '1'),
  '_class_name': ('VQModel', "'AutoencoderKL'"),
  'use_quant_conv': (False, 'True'),
  'mid_block_add_attention': (False, 'True'),
  'act_fn': ('relu', "'silu'"),
  'decoder_block_out_channels': ([64, 64, 128], '[32, 32, 64]'),
  'down_block_types': (['AttnDownEncoderBlock2D'] * 3, "['DownEncoderBlock2D'"),
}


@pytest.mark.parametrize('key', CONTRADICTIONS)
def test_a_config_that_contradicts_the_arrays(key, tmp_path):
  arrays, config = source('kl')
  said, true = CONTRADICTIONS[key]
  folder = folder_of(arrays, config | {key: said}, tmp_path)
  with pytest.raises(InputError) as raised:
    read_tokenizer(folder)
  message = str(raised.value)
  assert f'{folder}: config.json says {key}=' in message
  assert f'and the arrays say {true}' in message
  assert '\n' not in message


@pytest.mark.parametrize(
  'name, value, problem',
  [
    ('encoder.mid_block.attentions.0.to_k.weight', None, 'lack the array {}'),
    ('decoder.up_blocks.1.resnets.1.conv2.weight', None, 'lack the array {}'),
    ('encoder.conv_out.weight', None, 'lack the array {}'),
    ('decoder.conv_norm_out.weight', None, 'lack the array {}'),
    ('encoder.conv_in.weight', np.ones((32, 4, 3, 3)), 'says in_channels=3'),
    ('decoder.conv_out.bias', np.ones(4), r'{} of the weights is \[4\], not'),
    ('encoder.conv_in.weight', np.ones(3), r'{} of .* \[3\], not of rank 4'),
    ('encoder.conv_in.weight', np.ones((0, 3, 3, 3)), 'not of rank 4'),
    ('quant_conv.weight', np.ones((8, 6, 1, 1)), r'{} .* not \[8, 8, 1, 1\]'),
    ('decoder.up_blocks.0.attentions.0.to_q.bias', np.ones(64), 'no place'),
    ('encoder.conv_in.bias', np.full(32, np.nan), 'not finite'),
    ('quantize.embed.weight', np.ones((4, 4)), 'Gumbel-softmax'),
    ('quantize.used', np.ones(4), 'by a remap file'),
  ],
)
def test_arrays_that_do_not_fit_are_named(name, value, problem, tmp_path):
  arrays, config = source('kl')
  arrays.pop(name, None)
  if value is not None:
    arrays[name] = value.astype(np.float32)
  folder = folder_of(arrays, config, tmp_path)
  with pytest.raises(InputError, match=problem.format(name)) as raised:
    read_tokenizer(folder)
  assert str(raised.value).startswith(str(folder))
  assert '\n' not in str(raised.value)


def test_what_gives_no_mean_and_variance(tmp_path):
  arrays, config = source('kl')
  for name in 'quant_conv.weight', 'quant_conv.bias':
    del arrays[name]
  for name in 'encoder.conv_out.weight', 'encoder.conv_out.bias':
    arrays[name] = arrays[name][:7]
  with pytest.raises(InputError, match='gives 7 channels, an odd number'):
    read_tokenizer(folder_of(arrays, config, tmp_path))


def test_half_of_the_statistics_of_patches(tmp_path):
  arrays, config = source('kl')
  arrays = as_flux2(arrays)
  del arrays['bn.running_var']
  config['_class_name'] = 'AutoencoderKLFlux2'
  with pytest.raises(InputError, match='lack the array bn.running_var'):
    read_tokenizer(folder_of(arrays, config, tmp_path))


def test_other_groups_than_those_of_the_weights(tmp_path):
  arrays, config = source('kl16')
  del config['norm_num_groups']
  with pytest.raises(
    InputError, match='32 groups .* do not divide 16 channels'
  ):
    read_tokenizer(folder_of(arrays, config, tmp_path))
  with pytest.raises(InputError, match='norm_num_groups is 0, no whole number'):
    config['norm_num_groups'] = 0
    read_tokenizer(folder_of(arrays, config, tmp_path))


@pytest.mark.parametrize(
  'config, problem',
  [
    (b'{', 'config.json is damaged'),
    (b'[' * 99_999, 'config.json is damaged'),
    (b'\xff', 'config.json is damaged'),
    (b'[]', 'config.json is of the class None'),
    (
      b'{"_class_name": "AutoencoderOobleck"}',
      "the class 'AutoencoderOobleck'",
    ),
  ],
)
def test_a_config_that_is_none(config, problem, tmp_path):
  arrays, _ = source('kl')
  folder_of(arrays, {}, tmp_path)
  (tmp_path / 'config.json').write_bytes(config)
  with pytest.raises(InputError, match=problem) as raised:
    read_tokenizer(tmp_path)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('value', [True, 'x', [1.0, 2.0], 0, 1e999])
def test_a_scale_that_is_none(value, tmp_path):
  arrays, config = source('kl')
  folder = folder_of(arrays, config | {'scaling_factor': value}, tmp_path)
  with pytest.raises(InputError, match='scaling_factor is .*, not a number'):
    read_tokenizer(folder)


def test_what_is_no_tokenizer(tmp_path):
  with pytest.raises(InputError, match='no folder of diffusers: it must hold'):
    read_tokenizer(tmp_path)
  save_file({'a': np.ones(3)}, tmp_path / 'a.safetensors')
  with pytest.raises(InputError, match=r'no arrays encoder.\* or decoder'):
    read_tokenizer(tmp_path / 'a.safetensors')


@pytest.mark.parametrize(
  'd, convolutions, parameters',
  [
    (4, True, 83_653_863),  # Stable Diffusion
    (16, False, 83_819_683),  # Stable Diffusion 3, FLUX.1
    (32, True, 84_046_115),  # FLUX.2
  ],
)
def test_networks_of_full_size_have_the_published_parameters(
  d, convolutions, parameters
):
  network = {
    'name': 'resnet',
    'D': d,
    'channels': 128,
    'multipliers': (1, 2, 4, 4),
    'attention': (),
    'downsample': 'conv3',
    'from_latent': d if convolutions else 0,
  }
  found = sum(leaf.size for leaf in jax.tree.leaves(expected(network)))
  found += d * (9 * 512 + 1)  # of the variance
  found += (2 * d) ** 2 + 2 * d if convolutions else 0  # quant_conv
  assert found == parameters
