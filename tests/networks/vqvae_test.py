import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.networks import VQVAEDecoder, VQVAEEncoder

SMALL = {'D': 4, 'channels': 16, 'residual_channels': 8}


def shapes_of(module, *shape):
  """Returns output and variables as shapes: nothing is computed."""
  return jax.eval_shape(
    module.init_with_output, jax.random.key(0), jnp.zeros(shape)
  )


def drawn(module, *shape):
  """Returns variables of variance 1/fan_in, drawn without compiling `init`."""
  generator = np.random.default_rng(0)

  def draw(path, a):
    if path[-1].key != 'kernel':
      return np.zeros(a.shape, np.float32)
    deviation = np.prod(a.shape[:-1]) ** -0.5
    return generator.normal(0, deviation, a.shape).astype(np.float32)

  _, variables = shapes_of(module, *shape)
  return jax.tree_util.tree_map_with_path(draw, variables)


def count(tree):
  return sum(a.size for a in jax.tree.leaves(tree))


def test_encoder_has_the_parameters_of_the_paper():
  _, variables = shapes_of(VQVAEEncoder(D=16), 1, 32, 32, 3)
  params = variables['params']
  to_latent = count(params.pop('to_latent'))
  assert (count(params), to_latent) == (363_840, 128 * 16 + 16)


def test_decoder_has_the_parameters_of_the_paper():
  _, variables = shapes_of(VQVAEDecoder(D=16), 1, 8, 8, 16)
  # conv3x3 16 -> 128: 9*16*128 + 128 = 18,560; two blocks of 9*128*32 + 32*128
  # = 40,960; up 128 -> 64: 16*128*64 + 64 = 131,136; up 64 -> 3: 3,075.
  assert count(variables) == 18_560 + 2 * 40_960 + 131_136 + 3_075 == 234_691


@pytest.mark.parametrize('f', [2, 4, 8])
@pytest.mark.parametrize('height, width', [(1, 1), (4, 4), (3, 5)])
def test_shapes_follow_f(f, height, width):
  image, site = (2, f * height, f * width, 3), (2, height, width, 4)
  z, _ = shapes_of(VQVAEEncoder(f=f, **SMALL), *image)
  y, _ = shapes_of(VQVAEDecoder(f=f, **SMALL), *site)
  assert (z.shape, y.shape) == (site, image)


def test_moving_the_image_by_f_moves_the_latent_by_one_site():
  wide = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 52, 48, 3))
  both = np.concatenate([wide[:, :48], wide[:, 4:]]).astype(np.float32)
  encoder = VQVAEEncoder(**SMALL)
  variables = drawn(encoder, 1, 8, 8, 3)
  z, moved = np.split(jax.jit(encoder.apply)(variables, both), 2)
  # The border pads reach four sites in: one a halving's worth, three by 3x3.
  np.testing.assert_allclose(moved[:, 4:-5], z[:, 5:-4], atol=1e-5)
  assert not np.allclose(moved[:, 4:-5], z[:, 4:-5], atol=1e-2)


@pytest.mark.parametrize('module', [VQVAEEncoder, VQVAEDecoder])
def test_computes_in_dtype_between_float32_ends(module):
  shape = (1, 8, 8, 3) if module is VQVAEEncoder else (1, 8, 8, 4)
  half = module(**SMALL, dtype=jnp.bfloat16)

  def run(x):
    init = half.init_with_output
    return init(jax.random.key(0), x, capture_intermediates=True)

  y, variables = jax.eval_shape(run, jnp.zeros(shape))
  inside = dict(variables['intermediates'])
  inside.pop('__call__')

  def dtypes(tree):
    return {a.dtype for a in jax.tree.leaves(tree)}

  assert dtypes(inside) == {jnp.dtype('bfloat16')}
  assert dtypes((y, variables['params'])) == {jnp.dtype('float32')}


def test_bfloat16_is_close_to_float32():
  encoder, decoder = VQVAEEncoder(**SMALL), VQVAEDecoder(**SMALL)
  encoding, decoding = drawn(encoder, 1, 8, 8, 3), drawn(decoder, 1, 4, 4, 4)

  @jax.jit
  def run(encoding, decoding, image):
    y = decoder.apply(decoding, encoder.apply(encoding, image))
    half = encoder.clone(dtype=jnp.bfloat16).apply(encoding, image)
    return y, decoder.clone(dtype=jnp.bfloat16).apply(decoding, half)

  image = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 8, 8, 3))
  y, half = run(encoding, decoding, image.astype(np.float32))
  assert float(y.std()) > 1e-3
  assert 0 < float(abs(half - y).max()) < 0.1 * float(abs(y).max())


def test_wrong_fields_and_inputs_are_refused():
  with pytest.raises(InputError, match='f = 6'):
    shapes_of(VQVAEEncoder(f=6, **SMALL), 1, 12, 12, 3)
  with pytest.raises(InputError, match='10x8 .* factor 4'):
    shapes_of(VQVAEEncoder(**SMALL), 1, 10, 8, 3)
  with pytest.raises(ValueError, match='5 channels, not D = 4'):
    shapes_of(VQVAEDecoder(**SMALL), 1, 2, 2, 5)
