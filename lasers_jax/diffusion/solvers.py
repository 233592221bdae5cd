"""From noise to an image, in a few deterministic steps.

All of them solve the probability flow of the diffusion (Song et al., ICLR
2021) in the form of DPM-Solver++ (C. Lu et al., arXiv 2211.01095, equation 8):
from t to s, with x̂ the image that the network sees in x_t,

  x_s = σ_s / σ_t x_t + (α_s - σ_s α_t / σ_t) x̂,

which is exact if x̂ is constant, and is DDIM (J. Song, C. Meng and S. Ermon,
ICLR 2021). They differ in their x̂.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.diffusion.schedule import Interpolant

Denoise = Callable[[Array, Array], Array]
# log α/σ is infinite at both ends; this is beyond what a step looks at.
_LEAST = 1e-4


def sample(
  denoise: Denoise,
  schedule: Interpolant,
  noise: Array,
  steps: int,
  solver: str = 'dpmpp_2m',
) -> Array:
  """Turns noise into images; nothing else is random.

  Args:
    denoise: (x_t [B, ...], t, a scalar) -> x̂ [B, ...], the estimated image;
      x_t and t are float32, x̂ may be of any float type.
    noise: [B, ...], standard normal, of any float type.
    steps: of equal length in t, from 1 to 0; at least 1.
    solver: a name in SOLVERS. 'heun' calls `denoise` twice a step, except in
      the last; the others once.

  Returns:
    Images float32, of the shape of noise.

  Raises:
    ValueError: an unknown solver, or fewer steps than one.
  """
  if steps < 1:
    raise ValueError(f'sampling takes at least 1 step, got {steps}')
  if solver not in SOLVERS:
    raise ValueError(f'the solvers are {", ".join(SOLVERS)}, not {solver!r}')
  times = jnp.linspace(1.0, 0.0, steps + 1, dtype=jnp.float32)

  def estimate(x: Array, t: Array) -> Array:
    return denoise(x, t).astype(jnp.float32)

  noise = noise.astype(jnp.float32)
  return SOLVERS[solver](estimate, schedule, noise, times)


def _ddim(
  denoise: Denoise, schedule: Interpolant, noise: Array, times: Array
) -> Array:
  """First order: x̂ at the beginning of the step."""

  def step(x, ends):
    t, s = ends
    return _move(schedule, x, denoise(x, t), t, s), None

  return jax.lax.scan(step, noise, (times[:-1], times[1:]))[0]


def _heun(
  denoise: Denoise, schedule: Interpolant, noise: Array, times: Array
) -> Array:
  """Second order: the mean of x̂ at both ends, the second one as predicted."""

  def step(x, ends):
    t, s = ends
    first = denoise(x, t)
    second = denoise(_move(schedule, x, first, t, s), s)
    return _move(schedule, x, (first + second) / 2, t, s), None

  x, _ = jax.lax.scan(step, noise, (times[:-2], times[1:-1]))
  # At the end x̂ itself is the image, and there is nothing to correct.
  return denoise(x, times[-2])


def _dpmpp_2m(
  denoise: Denoise, schedule: Interpolant, noise: Array, times: Array
) -> Array:
  """DPM-Solver++(2M): x̂ goes on as it changed in the step before.

  Algorithm 2 of the paper; the first and the last step are of first order.
  """
  level = _log_ratio(schedule, times)
  width = level[1:] - level[:-1]
  # How far the middle of a step lies beyond its beginning, in steps before.
  weight = jnp.pad(width[1:] / (2 * width[:-1]), (1, 0)).at[-1].set(0.0)

  def step(carry, step):
    (x, before), (t, s, weight) = carry, step
    now = denoise(x, t)
    ahead = now + weight * (now - before)
    return (_move(schedule, x, ahead, t, s), now), None

  start = noise, jnp.zeros_like(noise)
  (x, _), _ = jax.lax.scan(step, start, (times[:-1], times[1:], weight))
  return x


SOLVERS = {'ddim': _ddim, 'heun': _heun, 'dpmpp_2m': _dpmpp_2m}


def _move(
  schedule: Interpolant, x: Array, image: Array, t: Array, s: Array
) -> Array:
  (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
  kept = sigma_s / sigma_t
  return kept * x + (alpha_s - kept * alpha_t) * image


def _log_ratio(schedule: Interpolant, times: Array) -> Array:
  alpha, sigma = schedule(times)
  return jnp.log(jnp.maximum(alpha, _LEAST) / jnp.maximum(sigma, _LEAST))
