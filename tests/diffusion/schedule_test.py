import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.diffusion import Schedule, Straight

TIMES = np.linspace(0, 1, 11, dtype=np.float32)
INTERPOLANTS = [Schedule(), Schedule(0.8), Straight(), Straight(3.3)]


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


@pytest.mark.parametrize('interpolant', INTERPOLANTS, ids=str)
def test_v_holds_the_image(interpolant):
  image, noise = pair()
  t = TIMES[:, None]
  mixed = interpolant.mix(image, noise, t)
  v = interpolant.velocity(image, noise, t)
  np.testing.assert_allclose(
    interpolant.image_of(mixed, v, t), image, atol=1e-5
  )


@pytest.mark.parametrize('interpolant', INTERPOLANTS, ids=str)
def test_time_goes_from_the_image_to_noise(interpolant):
  image, noise = pair()
  mixed = interpolant.mix(image, noise, TIMES[:, None])
  np.testing.assert_allclose(mixed[0], image[0], rtol=1e-6)
  np.testing.assert_allclose(mixed[-1], noise[-1], rtol=1e-6)
  alpha, sigma = interpolant(TIMES)
  assert alpha.dtype == sigma.dtype == jnp.float32
  assert np.all(np.diff(alpha) < 0)
  assert np.all(np.diff(sigma) > 0)


@pytest.mark.parametrize('scale', [1.0, 0.7])
def test_the_equations_of_the_cosine_schedule(scale):
  """As they stand in the paper, in float64."""
  image, noise = pair()
  angle = np.pi / 2 * np.float64(TIMES)[:, None]
  length = np.hypot(scale * np.cos(angle), np.sin(angle))
  alpha, sigma = scale * np.cos(angle) / length, np.sin(angle) / length
  schedule, t = Schedule(scale), TIMES[:, None]
  close = {'atol': 1e-6}
  mixed = schedule.mix(image, noise, t)
  np.testing.assert_allclose(mixed, alpha * image + sigma * noise, **close)
  v = schedule.velocity(image, noise, t)
  np.testing.assert_allclose(v, alpha * noise - sigma * image, **close)


def test_the_straight_line():
  image, noise = pair()
  t = TIMES[:, None]
  mixed = Straight().mix(image, noise, t)
  np.testing.assert_allclose(mixed, (1 - t) * image + t * noise, atol=1e-6)
  v = Straight().velocity(image, noise, t)
  np.testing.assert_array_equal(v, noise - image)
  same = Straight().mix(image[:1], noise[:1], t)
  slope = np.diff(same, axis=0) / np.diff(t, axis=0)
  np.testing.assert_allclose(slope, np.tile(v[:1], (10, 1)), atol=1e-5)


def test_a_shift_of_times_adds_noise():
  t = np.float64(TIMES[1:-1])
  alpha, sigma = np.float64(Straight(3.3)(TIMES[1:-1]))
  np.testing.assert_allclose(alpha + sigma, 1, rtol=1e-6)
  np.testing.assert_allclose(sigma, 3.3 * t / (1 + 2.3 * t), rtol=1e-5)
  ratio = np.log(alpha / sigma) - np.log((1 - t) / t)
  np.testing.assert_allclose(ratio, -np.log(3.3), rtol=1e-4)


def pair():
  """Images and noise: [11, 5] each."""
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.standard_normal((2, 11, 5)), jnp.float32)


def test_a_scale_of_zero_is_an_error():
  with pytest.raises(ValueError, match='signal_scale must be positive: 0'):
    Schedule(0)


def test_a_shift_of_zero_is_an_error():
  with pytest.raises(ValueError, match='shift must be positive: 0'):
    Straight(0)
