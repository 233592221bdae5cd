"""VAElight by its files of ONNX."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import lasers_jax as lj
from lasers_jax.errors import InputError
from lasers_jax.pretrained.tokenizers import read_tokenizer
from tests.pretrained.tokenizers.light_files import drawn, files


def written(folder):
  for name, data in files(np.random.default_rng(0)).items():
    (folder / name).write_bytes(data)
  return folder / 'VAEencoder.onnx', folder / 'VAEpreview.onnx'


def test_either_file_is_both_and_so_are_their_arrays_in_one(tmp_path):
  encoder, decoder = written(tmp_path)
  rng = np.random.default_rng(0)
  both = {
    f'{side}.{name}': array
    for side in ('encoder', 'decoder')
    for name, array in drawn(side, rng).items()
  }
  save_file(both, tmp_path / 'both.safetensors')
  found = [
    read_tokenizer(file)
    for file in (tmp_path / 'both.safetensors', encoder, decoder)
  ]
  for other in found[1:]:
    jax.tree.map(np.testing.assert_array_equal, other.params, found[0].params)
    assert other.network == found[0].network
    assert other.source == str(encoder)
  assert found[1].hash == found[2].hash


def test_a_file_of_onnx_names_a_model(tmp_path):
  encoder, _ = written(tmp_path)
  model = lj.load(encoder)
  assert model.latents(np.zeros((16, 24, 3), np.uint8)).shape == (2, 3, 2)
  assert model.folder == str(tmp_path / 'VAEencoder.lasers_jax')


def test_half_of_one_says_how_the_other_is_called(tmp_path):
  encoder, decoder = written(tmp_path)
  encoder.unlink()
  with pytest.raises(InputError, match=r'name them X_encoder\* and X_preview'):
    read_tokenizer(decoder)
