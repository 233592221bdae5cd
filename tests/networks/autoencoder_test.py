import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks import VQ, Lasers
from lasers_jax.decoders import Plain
from lasers_jax.networks import NETWORKS
from lasers_jax.networks.autoencoder import Autoencoder

TINY = {
  'D': 8,
  'f': 4,
  'channels': 16,
  'residual_channels': 8,
  'residual_blocks': 1,
}
IMAGES = (2, 16, 16, 3)


def build(bottleneck, **network) -> Autoencoder:
  encoder, decoder = NETWORKS['vqvae']
  return Autoencoder(encoder(**network), bottleneck, Plain(decoder(**network)))


@pytest.fixture(scope='module')
def model():
  return build(Lasers(D=8, K=16, S=2), **TINY)


@pytest.fixture(scope='module')
def images():
  pixels = np.random.default_rng(0).uniform(size=IMAGES)
  return jnp.asarray(pixels, jnp.float32)


@pytest.fixture(scope='module')
def variables(model, images):
  """Drawn without compiling `init`."""
  generator = np.random.default_rng(1)

  def draw(a):
    if a.ndim < 2:
      return jnp.ones(a.shape)
    deviation = np.prod(a.shape[:-1]) ** -0.5
    return jnp.asarray(generator.normal(0, deviation, a.shape), jnp.float32)

  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  return jax.tree.map(draw, shapes)


def compiled(model, **options):
  return jax.jit(functools.partial(model.apply, **options))


@pytest.fixture(scope='module')
def output(model, variables, images):
  return compiled(model, train=False)(variables, images)


# Bit for bit, though these are three programs: networks and bottleneck consist
# of matrix products and loops, which XLA:CPU does not fuse into each other.
def test_decoded_codes_are_the_forward_pass(model, variables, images, output):
  codes = compiled(model, method='encode')(variables, images)
  jax.tree.map(np.testing.assert_array_equal, codes, output.latent.codes)
  decoded = compiled(model, method='decode')(variables, codes)
  np.testing.assert_array_equal(decoded, output.images)


def test_images_of_quantized_latents(model, variables, output):
  images = compiled(model, method='decode_latent')(
    variables, output.latent.quantized
  )
  np.testing.assert_array_equal(images, output.images)


def test_shapes(output):
  assert output.images.shape == IMAGES
  assert output.z.shape == output.latent.quantized.shape == (2, 4, 4, 8)
  assert output.latent.codes.atoms.shape == (2, 4, 4, 2)


def count(tree) -> int:
  return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  'bottleneck, atoms', [(Lasers(D=16, S=5), 16 * 512), (VQ(D=16), 0)]
)
def test_parameters_of_the_paper(bottleneck, atoms):
  model = build(bottleneck, D=16)
  variables = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )
  params = variables['params']
  assert count(params['encoder'].pop('to_latent')) == 128 * 16 + 16
  assert count(params['encoder']) == 363_840
  assert count(params['decoder']) == 234_691
  assert count(params.get('bottleneck', {})) == atoms


def test_gradients_reach_the_encoder_through_the_codes(
  model, variables, images
):
  def loss(params):
    output = model.apply({**variables, 'params': params}, images, train=True)
    return jnp.mean((output.images - images) ** 2)

  gradient = jax.jit(jax.grad(loss))(variables['params'])
  for x in jax.tree.leaves((gradient['encoder'], gradient['decoder'])):
    assert np.all(np.isfinite(x))
    assert np.any(x != 0)
  # Atoms learn from the bottleneck's own loss.
  assert not np.any(gradient['bottleneck']['dictionary'])
