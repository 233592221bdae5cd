"""Held against data of which the best denoiser and the flow are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.diffusion import SOLVERS, Schedule, Straight, sample

MEAN, DEVIATION = 0.3, 0.25
SCHEDULE = Schedule()
NOISE = jax.random.normal(jax.random.key(0), (4000, 1))


def gaussian(schedule):
  """The mean of x given x_t, for x ~ N(MEAN, DEVIATION²)."""

  def denoise(x, t):
    alpha, sigma = schedule(t)
    gain = DEVIATION**2 * alpha / (DEVIATION**2 * alpha**2 + sigma**2)
    return MEAN + gain * (x - alpha * MEAN)

  return denoise


def error(solver, steps, schedule=SCHEDULE):
  """By how much the flow, which is linear, scales noise wrongly."""
  ends = jnp.array([[0.0], [1.0]])
  low, high = sample(gaussian(schedule), schedule, ends, steps, solver)
  np.testing.assert_allclose(low, MEAN, atol=1e-6)
  return abs(float(high[0] - low[0]) - DEVIATION)


@pytest.mark.parametrize('solver', SOLVERS)
def test_a_gaussian_is_reached(solver):
  assert error(solver, 512) < 0.002
  assert error(solver, 512, Schedule(0.5)) < 0.003
  assert error(solver, 512, Straight()) < 0.002


@pytest.mark.parametrize(
  'solver, order', [('ddim', 1), ('heun', 2), ('dpmpp_2m', 2)]
)
@pytest.mark.parametrize('schedule', [SCHEDULE, Straight()], ids=str)
def test_the_error_falls_with_the_order(schedule, solver, order):
  # Near both ends log α/σ is without bound, so that theory is not quite met.
  coarse, fine = (error(solver, steps, schedule) for steps in (128, 512))
  found = np.log(coarse / fine) / np.log(4)
  assert order - 0.5 < found < order + 0.2


def test_higher_orders_pay():
  assert error('heun', 32) < error('ddim', 64)
  assert error('dpmpp_2m', 64) < error('heun', 32)


@pytest.mark.parametrize('solver', SOLVERS)
@pytest.mark.parametrize('steps', [1, 2, 25])
@pytest.mark.parametrize(
  'schedule', [SCHEDULE, Straight(), Straight(3)], ids=str
)
def test_a_single_image_is_found_in_any_number_of_steps(
  solver, steps, schedule
):
  image = jnp.linspace(-1, 1, 12).reshape(1, 2, 2, 3)
  noise = jax.random.normal(jax.random.key(1), image.shape)
  found = sample(lambda x, t: image, schedule, noise, steps, solver)
  np.testing.assert_allclose(found, image, atol=1e-6)


@pytest.mark.parametrize('steps', [1, 2, 25])
def test_ddim_on_a_straight_line_is_eulers_method(steps):
  straight = Straight()
  denoise = gaussian(straight)
  x, times = np.float64(NOISE[:50]), np.linspace(1, 0, steps + 1)
  for t, s in itertools.pairwise(times):
    # The velocity: where x_t comes from, less where it goes.
    v = (x - np.float64(denoise(jnp.asarray(x, jnp.float32), t))) / t
    x = x + (s - t) * v
  found = sample(denoise, straight, NOISE[:50], steps, 'ddim')
  np.testing.assert_allclose(found, x, atol=1e-6)


@pytest.mark.parametrize('solver', SOLVERS)
def test_the_distribution_of_samples(solver):
  found = sample(gaussian(Schedule()), Schedule(), NOISE, 50, solver)
  np.testing.assert_allclose(jnp.mean(found), MEAN, atol=0.02)
  np.testing.assert_allclose(jnp.std(found), DEVIATION, rtol=0.05)


@pytest.mark.parametrize('solver', SOLVERS)
@pytest.mark.parametrize('kind', [jnp.bfloat16, jnp.float16])
def test_noise_and_networks_of_half_the_bits(solver, kind):
  noise, schedule = NOISE[:50].astype(kind), Schedule()
  expected = sample(
    gaussian(schedule), schedule, noise.astype(jnp.float32), 4, solver
  )
  found = sample(gaussian(schedule), schedule, noise, 4, solver)
  assert found.dtype == jnp.float32
  np.testing.assert_array_equal(found, expected)
  rough = sample(
    lambda x, t: gaussian(schedule)(x.astype(kind), t).astype(kind),
    schedule, noise, 4, solver,
  )  # fmt: skip
  assert rough.dtype == jnp.float32
  np.testing.assert_allclose(rough, expected, atol=0.03)


@pytest.mark.parametrize('solver', SOLVERS)
def test_noise_of_twice_the_bits(solver):
  with jax.enable_x64(True):
    noise = np.asarray(NOISE[:50], np.float64)
    found = sample(gaussian(Schedule()), Schedule(), noise, 4, solver)
  expected = sample(gaussian(Schedule()), Schedule(), NOISE[:50], 4, solver)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_steps_is_an_error():
  with pytest.raises(ValueError, match='at least 1 step, got 0'):
    sample(lambda x, t: x, Schedule(), NOISE, 0)


def test_an_unknown_solver_is_an_error():
  with pytest.raises(ValueError, match="dpmpp_2m, not 'euler'"):
    sample(lambda x, t: x, Schedule(), NOISE, 1, 'euler')
