"""Encoder outputs, and what is decoded of them."""

import jax
import numpy as np
import pytest

from lasers_jax import inference
from lasers_jax.core.sharding import make_mesh
from lasers_jax.experiment.settings import build_model

VQ = dict(name='vq', K=16)
BOTTLENECKS = {
  'vq': VQ,
  'lasers': dict(name='lasers', K=16, S=2),
  'kl': dict(name='kl'),
  'none': dict(name='none'),
  'none-rounded': dict(name='none', value_bits=3),
  # It codes a site by its whole image: padding must not be coded with it.
  'mqvae': dict(name='mqvae', keep=0.3, width=16, blocks=1, inner=VQ),
}
NETWORK = dict(name='vqvae', D=8, f=4, channels=16, residual_blocks=1)
DIFFUSION = dict(
  name='diffusion', channels=8, multipliers=(1, 2), blocks=1, latent=True
)


def images(n, height, width):
  """Smooth pictures that differ: uint8 [n, height, width, 3]."""
  coarse = np.random.default_rng(0).uniform(0, 255, (n, 3, 3, 3))
  return np.uint8(jax.image.resize(coarse, (n, height, width, 3), 'cubic'))


def start(model):
  """Variables of a model that saw images, no bias of it 0."""

  @jax.jit
  def draw(images):
    variables = model.init(jax.random.key(0), images)
    _, fitted = model.apply(
      variables,
      images,
      method='initialize',
      mutable=['params', 'codebook'],
      rngs={'bottleneck': jax.random.key(1)},
    )
    return {**variables, **fitted}

  return draw(images(8, 32, 32) / np.float32(255))


@pytest.fixture(scope='module', params=BOTTLENECKS)
def trained(request):
  model = build_model(NETWORK, BOTTLENECKS[request.param], dict(name='plain'))
  return model, start(model)


@pytest.mark.parametrize('size', [(32, 24), (29, 22)])
def test_encoder_outputs_are_decoded_as_images_are(trained, size, monkeypatch):
  monkeypatch.setattr(inference, 'BATCH', 2)  # the last one is filled up
  (model, variables), mesh = trained, make_mesh(data=2)
  pictures = images(3, *size)
  z = inference.encode_z(model, variables, pictures, mesh)
  assert z.dtype == np.float32
  assert z.shape == (3, 8, 6, 8)
  found = inference.decode_z(model, variables, z, mesh, size=size)
  expected = inference.reconstruct(model, variables, pictures, mesh)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, np.stack(expected))


def test_encoder_outputs_are_those_of_the_forward_pass(trained):
  model, variables = trained
  pictures = images(2, 32, 24)
  found = inference.encode_z(model, variables, pictures, make_mesh(data=1))
  output = jax.jit(model.apply)(variables, pictures / np.float32(255))
  np.testing.assert_allclose(found, output.z, rtol=1e-4, atol=1e-5)
  quantized = model.apply(variables, output.z, method='quantize')
  np.testing.assert_allclose(
    quantized, output.latent.quantized, rtol=1e-4, atol=1e-5
  )


def test_a_decoder_that_samples_draws_the_same():
  model, mesh = build_model(NETWORK, VQ, DIFFUSION), make_mesh(data=1)
  variables, pictures = start(model), images(3, 32, 24)
  decoding = model.decoder.Sampling(steps=2, seed=3)
  arguments = model, variables, pictures, mesh, decoding
  z = inference.encode_z(model, variables, pictures, mesh)
  found = inference.decode_z(model, variables, z, mesh, decoding)
  np.testing.assert_array_equal(found, inference.reconstruct(*arguments))
