import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.gradients import GRADIENTS, rotation

D = 6


@pytest.fixture(scope='module')
def pair():
  rng = np.random.default_rng(0)
  return tuple(jnp.asarray(rng.standard_normal((5, D)), 'f4') for _ in range(2))


@pytest.mark.parametrize('name', GRADIENTS)
def test_values_are_the_quantized_ones_to_the_last_bit(pair, name):
  np.testing.assert_array_equal(GRADIENTS[name](*pair), pair[1])


@pytest.mark.parametrize('name', GRADIENTS)
def test_no_gradient_reaches_the_quantized_values(pair, name):
  z, quantized = pair
  found = jax.grad(lambda q: jnp.sum(GRADIENTS[name](z, q) ** 2))(quantized)
  assert not np.any(found)


def test_rotation_turns_and_scales_as_the_matrix_of_the_paper(pair):
  """Fifty et al. 2024, equation 4, in float64."""
  for z, q in zip(*pair, strict=True):
    jacobian = jax.jacobian(lambda x, q=q: rotation(x, q))(z)
    z, q = np.asarray(z, np.float64), np.asarray(q, np.float64)
    one, other = (x / np.linalg.norm(x) for x in (z, q))
    middle = (one + other) / np.linalg.norm(one + other)
    turn = np.eye(D) - 2 * np.outer(middle, middle) + 2 * np.outer(other, one)
    np.testing.assert_allclose(turn @ turn.T, np.eye(D), atol=1e-12)
    turn *= np.linalg.norm(q) / np.linalg.norm(z)
    np.testing.assert_allclose(turn @ z, q, atol=1e-12)
    np.testing.assert_allclose(jacobian, turn, atol=1e-4)


@pytest.mark.parametrize('scale', [0.0, 1e-12, 1e12])
def test_rotation_is_finite(pair, scale):
  z, q = pair
  for a, b in ((scale * z, q), (z, scale * q), (z, -z), (z, z)):
    value, pull = jax.vjp(lambda x, b=b: rotation(x, b), a)
    assert np.isfinite(value).all()
    assert np.isfinite(pull(jnp.ones_like(value))[0]).all()
