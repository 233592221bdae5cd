"""Decoding by diffusion: from what the first decoder made to a sample."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.core.ranges import Amount, Count, Seed, Share
from lasers_jax.diffusion import SOLVERS, Schedule, sample
from lasers_jax.errors import InputError
from lasers_jax.networks.autoencoder import Autoencoder, Output


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
  """How the diffusion decoder draws an image.

  Attributes:
    solver: 'ddim', 'heun' or 'dpmpp_2m'.
    steps: of the solver.
    guidance: w of v = v_without + w (v_with - v_without), where 'with' has seen
      the code; 1 is none, and costs half (J. Ho and T. Salimans, "Classifier-
      free diffusion guidance", arXiv 2207.12598, equation 6, has w - 1).
    guidance_interval: the times at which guidance acts, from and to, in [0, 1]
      (T. Kynkäänniemi et al., NeurIPS 2024).
    seed: of the noise, which is a function of it and of the image's number.
  """

  solver: str = 'dpmpp_2m'
  steps: Count = 10
  guidance: Amount = 1.0
  guidance_interval: tuple[Share, Share] = (0.0, 1.0)
  seed: Seed = 0

  def __post_init__(self):
    if self.solver not in SOLVERS:
      raise InputError(
        f'sampling.solver must be one of {", ".join(SOLVERS)}: {self.solver!r}'
      )
    low, high = self.guidance_interval
    if low >= high:
      raise InputError(
        f'sampling.guidance_interval must be two times, from < to: '
        f'{low:g}, {high:g}'
      )


class Decoding(NamedTuple):
  """The noise that a model was trained with, and how it is taken off."""

  schedule: Schedule
  sampling: SamplingSettings


def check_guidance(model: Autoencoder, settings: SamplingSettings) -> None:
  """Raises InputError where a model cannot be guided, and is to be."""
  if (
    model.refine
    and settings.guidance != 1
    and not model.refine.condition_dropout
  ):
    raise InputError(
      f'sampling.guidance={settings.guidance:g} needs a model trained with '
      'refine.condition_dropout above 0: this one has never decoded '
      'without its code'
    )


def say_decoding(decoding: Decoding | None) -> dict[str, Any]:
  """What results say of the decoder."""
  if decoding is None:
    return {'decoder': 'one pass'}
  return {
    'decoder': 'diffusion, one sample an image; `initial` is its beginning',
    'sampling': dataclasses.asdict(decoding.sampling),
  }


def draw_noise(
  indices: Array,
  shape: tuple[int, ...],
  seed: int,
  draw: int = 0,
  sizes: Array | None = None,
) -> Array:
  """Draws the noise of images by their numbers in the split.

  Args:
    indices: int32 [B].
    shape: (h, w, 3).
    draw: which of the samples of an image.
    sizes: int32 [B, 2], of images that lie at the top left of that shape.

  Returns:
    Standard normal, [B, h, w, 3]; the same whatever images come along, and
    inside `sizes` the same as for images of these sizes.
  """
  key = jax.random.fold_in(jax.random.key(seed), draw)
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
  noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
  if sizes is None:
    return noise
  # The n-th number that a key gives does not depend on how many are drawn.
  y, x, c = jnp.indices(shape)[:, None]
  places = (y * sizes[:, 1, None, None, None] + x) * shape[2] + c
  flat = noise.reshape(len(noise), -1)
  moved = jnp.take_along_axis(
    flat, places.reshape(flat.shape), axis=1, mode='clip'
  )
  return moved.reshape(noise.shape)


def refine(
  model: Autoencoder,
  variables: Any,
  output: Output,
  noise: Array,
  decoding: Decoding,
) -> Array:
  """Samples images that agree with a forward pass.

  Args:
    output: of the model, in evaluation.
    noise: standard normal, of the shape of the images.

  Returns:
    Images [B, h, w, 3], about [0, 1].
  """
  n, (schedule, settings) = len(noise), decoding

  def predict(x, t, use_condition):
    times, use_condition = jnp.full(n, t), jnp.full(n, use_condition)
    return model.apply(
      variables, x, times, output, use_condition, method='denoise'
    )

  def guided(x, t):
    without, seen = predict(x, t, False), predict(x, t, True)
    return without + settings.guidance * (seen - without)

  def plain(x, t):
    return predict(x, t, True)

  def denoise(x, t):
    if settings.guidance == 1:
      v = plain(x, t)
    else:
      low, high = settings.guidance_interval
      v = jax.lax.cond((low <= t) & (t <= high), guided, plain, x, t)
    alpha, sigma = schedule(t)
    return jnp.clip(alpha * x - sigma * v, -1, 1)

  images = sample(denoise, schedule, noise, settings.steps, settings.solver)
  return (images + 1) / 2


def decode(
  model: Autoencoder,
  variables: Any,
  output: Output,
  indices: Array,
  decoding: Decoding | None,
) -> Array:
  """The images that a model makes of its code, by whatever decoder it has.

  Args:
    indices: int32 [B], the numbers of the images in the split.
    decoding: None where nothing refines.

  Returns:
    [B, h, w, 3], about [0, 1].
  """
  if decoding is None:
    return output.images
  sizes = None if output.sizes is None else model.padded(output.sizes)
  noise = draw_noise(
    indices, output.images.shape[1:], decoding.sampling.seed, sizes=sizes
  )
  return refine(model, variables, output, noise, decoding)
