"""Whole pictures of many sizes: each measured as if it were alone."""

import functools
import types

import jax
import numpy as np
import pytest
from PIL import Image

from lasers_jax import inference
from lasers_jax.core import sharding
from lasers_jax.core.images import to_uint8, to_uint8_range
from lasers_jax.data.pipeline import eval_batches
from lasers_jax.decoders import DEFAULT, Draw
from lasers_jax.evaluation import protocol
from lasers_jax.experiment.settings import build_model
from lasers_jax.metrics import similarity

pytestmark = pytest.mark.slow

SIZES = [(41, 70), (33, 96)]  # both in arrays of 48 x 96
VQ = dict(name='vq', K=16)
NETWORKS = {
  'vqvae': dict(name='vqvae', D=4, f=4, channels=8, residual_blocks=1),
  'resnet': dict(
    name='resnet', D=4, channels=8, multipliers=(1, 2), blocks=1, attention=(2,)
  ),
  'block': dict(
    name='block',
    D=4,
    f=4,
    channels=8,
    blocks=1,
    filter_channels=4,
    filter_blocks=1,
  ),
  'vector': dict(name='vector', D=4, side=4, channels=4, num_downsamples=1),
  'maskgit': dict(
    name='maskgit', D=4, channels=8, multipliers=(1, 2), blocks=1
  ),
  'tiny': dict(name='tiny', D=4, channels=4, pool=8),
  'light': dict(name='light', D=4, channels=8),
}
DIFFUSION = dict(
  name='diffusion',
  channels=8,
  multipliers=(1, 2),
  blocks=1,
  attention=(1,),
  num_downsamples=1,
  latent=True,
)
CASES = {
  'vqvae-lasers': ('vqvae', dict(name='lasers', K=16, S=2, patch=2), DEFAULT),
  'vqvae-mqvae': ('vqvae', dict(name='mqvae', keep=0.3, inner=VQ), DEFAULT),
  'resnet-vq': ('resnet', VQ, DEFAULT),
  'block-kl': ('block', dict(name='kl'), DEFAULT),
  'vector-residual': ('vector', dict(name='residual', inner=VQ), DEFAULT),
  'maskgit-none': ('maskgit', dict(name='none'), DEFAULT),
  'tiny-none': ('tiny', dict(name='none'), DEFAULT),
  'light-vq': ('light', VQ, DEFAULT),
  'vqvae-vq-diffusion': ('vqvae', VQ, DIFFUSION),
}


def picture(height, width, seed=0):
  coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
  size = width, height
  return np.asarray(Image.fromarray(coarse).resize(size, Image.BICUBIC))


class Drawn(list):
  """A source of pictures."""

  name, split = 'drawn', 'test'


PICTURES = Drawn(
  {'image': picture(*size, seed=i), 'label': 0} for i, size in enumerate(SIZES)
)


def start(model, images):
  """Variables that saw images, with a U-Net that does not give zeros."""

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

  variables = jax.device_get(draw(images / np.float32(255)))
  rng = np.random.default_rng(0)
  decoder = variables['params']['decoder']
  if 'unet' in decoder:
    decoder['unet'] = jax.tree.map(
      lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32),
      decoder['unet'],
    )
  return variables


def alone(model, variables, decoding, image, index):
  """What a model makes of a picture whose edge is repeated, and no more."""
  h, w, _ = image.shape
  m = model.pad_multiple
  padded = np.pad(image, ((0, -h % m), (0, -w % m), (0, 0)), mode='edge')

  @jax.jit
  def run(variables, images):
    output = model.apply(variables, images)
    draw = Draw(np.array([index], np.int32))
    return output, model.apply(
      variables, output.latent.quantized, draw, decoding, method='sample'
    )

  return run(variables, padded[None] / np.float32(255))


@pytest.fixture(scope='module', params=CASES)
def case(request):
  network, bottleneck, decoder = CASES[request.param]
  model = build_model(NETWORKS[network], bottleneck, decoder)
  decoding = None
  if model.decoder.is_stochastic:
    decoding = model.decoder.Sampling(steps=2, guidance=1.5)
  variables = start(model, picture(48, 72)[None])
  found = [
    alone(model, variables, decoding, item['image'], i)
    for i, item in enumerate(PICTURES)
  ]
  return types.SimpleNamespace(
    model=model, variables=variables, decoding=decoding, alone=found
  )


def test_numbers_are_those_of_each_picture_alone(case):
  model, bottleneck = case.model, case.model.bottleneck
  batches = list(
    eval_batches(PICTURES, 2, None, pad_multiple=model.pad_multiple)
  )
  assert len(batches) == 1
  assert batches[0]['image'].shape == (2, 48, 96, 3)
  mesh = sharding.make_mesh(data=1)
  compiled = protocol._measure_batch._cache_size()
  measured = protocol.measure(
    model, case.variables, batches, mesh, case.decoding
  )
  assert protocol._measure_batch._cache_size() == compiled + 1
  counts, bits = np.zeros(bottleneck.symbols, int), 0
  for i, (output, copies) in enumerate(case.alone):
    image = PICTURES[i]['image'][None]
    h, w = image.shape[1:3]
    copies = to_uint8_range(copies)[:, :h, :w]
    for name in 'psnr', 'ssim':
      expected = getattr(similarity, name)(image / np.float32(255), copies)[0]
      np.testing.assert_allclose(
        measured.values[name][i], expected, 1e-5, 1e-6, err_msg=f'{name} {i}'
      )
    if bottleneck.symbols:
      used = np.ravel(bottleneck.indices(output.latent.codes))
      counts += np.bincount(used, minlength=len(counts))
      bits += bottleneck.map_bits(*model.coded_sites(h, w))
  np.testing.assert_array_equal(measured.counts, counts)
  assert measured.bits == (bits if bottleneck.symbols else None)
  assert measured.pixels == sum(h * w for h, w in SIZES)


def test_codes_and_latents_are_those_of_each_picture_alone(case):
  model = case.model
  (batch,) = eval_batches(PICTURES, 2, None, pad_multiple=model.pad_multiple)
  sizes = np.stack([batch['height'], batch['width']], axis=1)
  apply = jax.jit(functools.partial(model.apply, sizes=sizes))
  # What is beyond the repeated edge is not read: here it is noise.
  images = batch['image'] / np.float32(255)
  noise = np.random.default_rng(0).uniform(size=images.shape)
  for i, (h, w) in enumerate(model.padded(sizes)):
    images[i, h:], images[i, :, w:] = noise[i, h:], noise[i, :, w:]
  output = jax.device_get(apply(case.variables, images))
  for i, (expected, _) in enumerate(case.alone):
    _, h, w, _ = expected.z.shape
    np.testing.assert_allclose(
      output.z[i, :h, :w], expected.z[0], rtol=1e-4, atol=1e-5
    )
    codes = jax.tree.map(lambda x, i=i: x[i], output.latent.codes)
    grid = h // model.patch, w // model.patch
    found = model.bottleneck.crop(codes, *grid)
    pairs = zip(
      jax.tree.leaves(found),
      jax.tree.leaves(jax.tree.map(lambda x: x[0], expected.latent.codes)),
      strict=True,
    )
    for a, b in pairs:
      assert a.shape == b.shape
      exact = np.issubdtype(a.dtype, np.integer)
      np.testing.assert_allclose(a, b, *(0, 0) if exact else (1e-4, 1e-4))


def test_reconstructions_are_those_of_each_picture_alone(case):
  images = [item['image'] for item in PICTURES]
  mesh = sharding.make_mesh(data=1)
  compiled = inference._reconstruct._cache_size()
  copies = inference.reconstruct(
    case.model, case.variables, images, mesh, case.decoding
  )
  assert inference._reconstruct._cache_size() == compiled + 1
  for image, copy, found in zip(images, copies, case.alone, strict=True):
    h, w, _ = image.shape
    expected = to_uint8_range(found[1])
    expected = to_uint8(expected)[0, :h, :w]
    assert copy.shape == image.shape
    assert np.abs(copy.astype(int) - expected).max() <= 1
    assert (copy != expected).mean() < 1e-3


def test_noise_is_that_of_each_picture_alone():
  sizes, indices = np.array([(5, 7), (8, 12)]), np.array([3, 4], np.int32)
  noise = Draw(indices, 2, sizes).normal((8, 12, 3), 1)
  for i, (h, w) in enumerate(sizes.tolist()):
    own = Draw(indices[i : i + 1], 2).normal((h, w, 3), 1)
    np.testing.assert_array_equal(noise[i, :h, :w], own[0])


@pytest.mark.parametrize(
  'name, side', [('psnr', 12), ('ssim', 12), ('ms_ssim', 177)]
)
def test_metrics_of_padded_images_are_those_of_the_images(name, side):
  rng = np.random.default_rng(0)
  a, b = rng.uniform(size=(2, 2, side + 30, side + 17, 3)).astype(np.float32)
  sizes = np.array([(side, side + 16), (side + 29, side + 1)], np.int32)
  metric = getattr(similarity, name)
  b = np.clip(a + 0.1 * b, 0, 1)
  found = metric(a, b, sizes)
  for i, (h, w) in enumerate(sizes.tolist()):
    expected = metric(a[i : i + 1, :h, :w], b[i : i + 1, :h, :w])[0]
    np.testing.assert_allclose(found[i], expected, rtol=1e-5)
