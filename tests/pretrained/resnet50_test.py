import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.pretrained import weights
from lasers_jax.pretrained.resnet50 import ResNet50, load_resnet50


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
  """(ResNet-50 in PyTorch with drawn weights, its file)."""
  torch = pytest.importorskip('torch')
  from tests.pretrained import torch_networks

  network = torch_networks.ResNet50()
  path = tmp_path_factory.mktemp('resnet50') / 'weights.pth'
  torch.save(network.state_dict(), path)
  return network, path


def test_agrees_with_torch(loaded):
  import torch

  network, path = loaded
  module, params = load_resnet50(path)
  a, b = np.random.default_rng(0).random((2, 1, 64, 64, 3), np.float32)

  @jax.jit
  def compute(params, a, b):
    distances, seen = module.apply(
      {'params': params},
      a,
      b,
      capture_intermediates=lambda part, _: isinstance(part, ResNet50),
    )
    return *seen['intermediates']['network']['__call__'], distances

  *features, distances = compute(params, a, b)
  with torch.no_grad():
    x, y = (
      network(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
      for image in (a, b)
    )
  assert x.std() > 0.01
  tolerance = 1e-4 * np.abs(x).max()
  np.testing.assert_allclose(features, [x, y], atol=tolerance)
  assert distances.shape == (1,)
  np.testing.assert_allclose(distances, [np.mean((x - y) ** 2)], rtol=1e-3)


def test_has_the_parameters_of_the_paper():
  x = jnp.zeros((1, 32, 32, 3))
  output, variables = jax.eval_shape(
    ResNet50().init_with_output, jax.random.key(0), x
  )
  assert output.shape == (1, 2048)
  # 25,557,032 with the classifier of 2,049,000; each normalised channel has one
  # number where it had two: 26,560 channels.
  sizes = [leaf.size for leaf in jax.tree.leaves(variables)]
  assert sum(sizes) == 25_557_032 - 2_049_000 - 26_560
  with pytest.raises(InputError, match='32x31 .* too small for ResNet-50'):
    jax.eval_shape(ResNet50().init, jax.random.key(0), x[:, :, 1:])


def test_files_that_do_not_fit(loaded, monkeypatch):
  network, path = loaded
  arrays = {n: t.numpy() for n, t in network.state_dict().items()}

  def load(**changed):
    kept = {n: a for n, a in (arrays | changed).items() if a is not None}
    monkeypatch.setattr(weights, 'read_weights', lambda _: kept)
    return load_resnet50(path)

  wide = np.zeros((128, 64, 1, 1))
  name = 'layer1.0.downsample.0.weight'
  with pytest.raises(InputError, match=rf'{name} .*\[128, .* not \[256, '):
    load(**{name: wide})
  with pytest.raises(InputError, match='lack the array bn1.running_var'):
    load(**{'bn1.running_var': None})
  with pytest.raises(InputError, match='name a file of torchvision'):
    load_resnet50(None)
