import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.diffusion import Schedule
from lasers_jax.diffusion.schedule import image_of, mix, velocity

TIMES = np.linspace(0, 1, 11, dtype=np.float32)


@pytest.mark.parametrize('scale', [1.0, 0.6])
def test_variance_is_preserved(scale):
  alpha, sigma = Schedule(scale)(TIMES)
  np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)
  assert alpha[0] == 1
  assert sigma[0] == 0
  assert alpha[-1] == 0
  assert sigma[-1] == 1
  assert np.all(np.diff(sigma) > 0)


def test_a_noise_scale_shifts_the_ratio():
  inside = TIMES[1:-1]
  logs = []
  for scale in (1.0, 0.6):
    alpha, sigma = np.float64(Schedule(scale)(inside))
    logs.append(np.log(alpha**2 / sigma**2))
  np.testing.assert_allclose(logs[1] - logs[0], 2 * np.log(0.6), rtol=1e-4)


def test_the_cosine_schedule():
  alpha, sigma = Schedule()(0.25)
  np.testing.assert_allclose(alpha, np.cos(np.pi / 8), rtol=1e-6)
  np.testing.assert_allclose(sigma, np.sin(np.pi / 8), rtol=1e-6)


def test_v_holds_the_image_and_the_noise():
  rng = np.random.default_rng(0)
  image, noise = jnp.asarray(rng.standard_normal((2, 11, 5)), jnp.float32)
  alpha, sigma = (x[:, None] for x in Schedule(0.8)(TIMES))
  mixed = mix(image, noise, alpha, sigma)
  v = velocity(image, noise, alpha, sigma)
  np.testing.assert_allclose(image_of(mixed, v, alpha, sigma), image, atol=1e-5)


def test_a_scale_of_zero_is_an_error():
  with pytest.raises(ValueError, match='signal_scale must be positive: 0'):
    Schedule(0)
