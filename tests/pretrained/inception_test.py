import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.pretrained.inception import InceptionV3, inception_params


@pytest.fixture(scope='module')
def network():
  torch = pytest.importorskip('torch', reason='what ours is held against')
  from tests.pretrained import torch_inception

  with torch.inference_mode():
    yield torch_inception.randomize(torch_inception.Inception(), seed=0)


def torch_output(network, images):
  import torch

  return network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()


@pytest.fixture(scope='module')
def arrays(network):
  return {name: x.numpy() for name, x in network.state_dict().items()}


def test_equals_torch_with_the_same_weights(network, arrays):
  rng = np.random.default_rng(0)
  coarse = rng.uniform(-1, 1, (2, 23, 23, 3)).repeat(13, 1).repeat(13, 2)
  images = np.clip(coarse + rng.normal(0, 0.1, coarse.shape), -1, 1)
  images = images.astype(np.float32)
  expected = torch_output(network, images)
  params = inception_params(arrays)
  features = jax.jit(InceptionV3().apply)({'params': params}, images)
  assert features.shape == (2, 2048)
  assert features.dtype == jnp.float32
  # Of order 1, and of every image its own: else nothing would be held.
  assert 0.1 < np.abs(expected).mean() < 10
  assert np.abs(expected[0] - expected[1]).mean() > 0.01
  np.testing.assert_allclose(features, expected, atol=1e-4, rtol=1e-4)


def test_has_the_parameters_of_the_published_network():
  images = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
  shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)
  sizes = [(x.ndim, x.size) for x in jax.tree.leaves(shapes)]
  kernels = [size for axes, size in sizes if axes == 4]
  biases = [size for axes, size in sizes if axes == 1]
  assert len(kernels) == len(biases) == 94
  # A bias stands for scale and shift. 23,834,568 with a classifier of ImageNet.
  assert sum(kernels) + 2 * sum(biases) == 23_834_568 - 2049 * 1000


def test_params_are_float32_whatever_the_file_holds(arrays):
  halves = {name: x.astype(np.float16) for name, x in arrays.items()}
  dtypes = {x.dtype for x in jax.tree.leaves(inception_params(halves))}
  assert dtypes == {np.dtype('float32')}


def test_the_classifier_is_not_needed(arrays):
  trunk = {k: x for k, x in arrays.items() if not k.startswith('fc.')}
  jax.tree.map(
    np.testing.assert_array_equal,
    inception_params(trunk),
    inception_params(arrays),
  )


@pytest.mark.parametrize(
  'name',
  [
    'Conv2d_1a_3x3.conv.weight',
    'Mixed_5b.branch1x1.bn.running_mean',
    'Mixed_6c.branch7x7dbl_3.bn.running_var',
    'Mixed_7c.branch3x3dbl_3b.bn.bias',
  ],
)
def test_what_is_missing_or_of_another_shape_is_named(arrays, name):
  rest = {key: x for key, x in arrays.items() if key != name}
  with pytest.raises(InputError, match=f'lack the array {name}:'):
    inception_params(rest)
  rest[name] = arrays[name][:-1]
  with pytest.raises(InputError, match=f'array {name} of .*, not'):
    inception_params(rest)


def test_other_inception_weights_are_refused(arrays):
  other = {**arrays, 'fc.weight': arrays['fc.weight'][:1000]}
  with pytest.raises(InputError, match=r'fc.weight .*\[1000, 2048\], not'):
    inception_params(other)


@pytest.mark.parametrize(
  'shape, dtype, match',
  [
    ((1, 256, 256, 3), 'float32', '299, 299, 3'),
    ((299, 299, 3), 'float32', '299, 299, 3'),
    ((1, 3, 299, 299), 'float32', '299, 299, 3'),
    ((1, 299, 299, 3), 'uint8', 'floats in'),
  ],
)
def test_other_images_are_refused(shape, dtype, match):
  with pytest.raises(ValueError, match=match):
    InceptionV3().apply({}, np.zeros(shape, dtype))
