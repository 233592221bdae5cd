import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from lasers_jax.diffusion import Schedule, diffusion_loss, draw_times

N = 4000


def test_uniform_times():
  times = np.asarray(draw_times(jax.random.key(0), N))
  assert scipy.stats.kstest(times, 'uniform').pvalue > 0.01


def test_logit_normal_times():
  times = np.float64(draw_times(jax.random.key(0), N, 0.0))
  logits = np.log(times / (1 - times))
  assert scipy.stats.kstest(logits, 'norm').pvalue > 0.01


def test_a_share_of_uniform_times_reaches_the_ends():
  times = np.asarray(draw_times(jax.random.key(0), N, 0.5))
  # Half of a hundredth; a logit of 4.6 is never drawn.
  share = np.mean(times > 0.99)
  np.testing.assert_allclose(share, 0.005, atol=0.003)


def batch():
  rng = np.random.default_rng(0)
  shape = 5, 4, 4, 3
  images = rng.uniform(-1, 1, shape).astype(np.float32)
  noise = rng.standard_normal(shape).astype(np.float32)
  times = np.linspace(0.1, 0.9, 5, dtype=np.float32)
  return images, times, noise


def test_the_loss_weighs_images_by_the_inverse_variance_of_noise():
  """w_t = 1 / σ² of the objective that is written with images."""
  images, times, noise = batch()
  guess = np.random.default_rng(1).standard_normal(images.shape)
  losses, estimates = diffusion_loss(
    lambda x, t: jnp.float32(guess), Schedule(), images, times, noise
  )
  sigma = np.sin(np.pi / 2 * np.float64(times))
  errors = np.mean((np.float64(estimates) - images) ** 2, axis=(1, 2, 3))
  np.testing.assert_allclose(losses, errors / sigma**2, rtol=1e-4)


def test_the_true_v_has_no_loss():
  images, times, noise = batch()
  alpha, sigma = (x[:, None, None, None] for x in Schedule()(times))
  losses, estimates = diffusion_loss(
    lambda x, t: alpha * noise - sigma * images,
    Schedule(),
    images,
    times,
    noise,
  )
  np.testing.assert_allclose(losses, 0, atol=1e-12)
  np.testing.assert_allclose(estimates, images, atol=1e-6)


def test_the_network_sees_the_mixture_and_its_time():
  images, times, noise = batch()
  seen = {}

  def predict(x, t):
    seen.update(x=x, t=t)
    return jnp.zeros_like(x)

  diffusion_loss(predict, Schedule(), images, times, noise)
  angle = np.pi / 2 * np.float64(times)[:, None, None, None]
  mixed = np.cos(angle) * images + np.sin(angle) * noise
  np.testing.assert_allclose(seen['x'], mixed, atol=1e-6)
  np.testing.assert_array_equal(seen['t'], times)


def test_images_of_half_the_bits_lose_none_in_the_loss():
  images, times, noise = (
    x.astype(jnp.bfloat16) for x in map(jnp.asarray, batch())
  )
  full = [x.astype(jnp.float32) for x in (images, times, noise)]
  guess = jnp.asarray(np.random.default_rng(1).standard_normal(images.shape))
  guess = guess.astype(jnp.bfloat16)
  found = diffusion_loss(lambda x, t: guess, Schedule(), images, times, noise)
  expected = diffusion_loss(
    lambda x, t: guess.astype(jnp.float32), Schedule(), *full
  )
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == jnp.float32
    np.testing.assert_array_equal(a, b)
  with jax.enable_x64(True):
    assert draw_times(jax.random.key(0), 5, 0.5).dtype == jnp.float32
