"""Decoding by diffusion: from a first estimate to a sample."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.core.ranges import (
  Amount,
  Count,
  Counts,
  Decay,
  Fraction,
  Positive,
  Seed,
  Whole,
)
from lasers_jax.decoders.base import (
  Decoder,
  Distance,
  Draw,
  SamplingSettings,
  TrainingSettings,
)
from lasers_jax.decoders.fusion import paste
from lasers_jax.decoders.unet import UNet, unet_factor
from lasers_jax.diffusion import (
  SOLVERS,
  Schedule,
  diffusion_loss,
  draw_times,
  sample,
)
from lasers_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class DiffusionTraining(TrainingSettings):
  """Holds the settings of the noise in training.

  Attributes:
    signal_scale: see `diffusion.Schedule`.
    uniform_fraction: see `diffusion.draw_times`.
  """

  signal_scale: Positive = 1.0
  uniform_fraction: Fraction = 1.0


@dataclasses.dataclass(frozen=True)
class DiffusionSampling(SamplingSettings):
  """Holds the settings by which a diffusion decoder draws an image.

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
  guidance_interval: tuple[Fraction, Fraction] = (0.0, 1.0)
  seed: Seed = 0

  def __post_init__(self):
    if self.solver not in SOLVERS:
      raise InputError(
        f'decoder.sampling.solver must be one of {", ".join(SOLVERS)}: '
        f'{self.solver!r}'
      )
    low, high = self.guidance_interval
    if low >= high:
      raise InputError(
        'decoder.sampling.guidance_interval must be two times, from < to: '
        f'{low:g}, {high:g}'
      )


class Diffusion(Decoder):
  """Samples images by a U-Net that denoises, given a first estimate.

  Birodkar et al., "Sample what you can't compress", arXiv 2409.02529: the
  network is D_initial, the U-Net D_refine. Its loss is the term `diffusion`;
  with a perceptual network and a weight for it there is `refined_perceptual`,
  the distance of the images that the U-Net estimates in one step.

  Attributes:
    channels: of the U-Net at full size.
    multipliers: of `channels`, one a level; the side halves from each to the
      next.
    num_downsamples: of the side before the first level, by moving 2x2 pixels to
      the channels: one makes it nearly four times as fast.
    blocks: residual blocks a level, on the way down and on the way up.
    attention: levels, counted from 0, whose blocks are followed by attention.
    condition_dropout: fraction of the images in training whose condition is
      hidden, for the estimate without condition that guidance requires.
    latent: whether the quantized latent is a second condition (not in SWYCC).
    dtype: of the computation.
  """

  Training: ClassVar[type] = DiffusionTraining
  Sampling: ClassVar[type] = DiffusionSampling
  is_stochastic: ClassVar[bool] = True
  perceptual_terms: ClassVar[tuple[str, ...]] = ('refined_perceptual',)

  training: TrainingSettings = DiffusionTraining()
  channels: Count = 64
  multipliers: Counts = (1, 2, 4)
  num_downsamples: Whole = 0
  blocks: Whole = 2
  attention: tuple[Whole, ...] = ()
  condition_dropout: Decay = 0.1
  latent: bool = False
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    super().setup()
    self.unet = UNet(
      channels=self.channels,
      multipliers=self.multipliers,
      num_downsamples=self.num_downsamples,
      blocks=self.blocks,
      attention=self.attention,
      latent=self.latent,
      dtype=self.dtype,
    )

  @property
  def pad_multiple(self) -> int:
    factor = unet_factor(self.multipliers, self.num_downsamples)
    return math.lcm(self.f, factor)

  @property
  def schedule(self) -> Schedule:
    return Schedule(self.training.signal_scale)

  def losses(
    self,
    images: Array,
    quantized: Array,
    first: Array,
    key: Array,
    distance: Distance | None = None,
    inputs: Array | None = None,
  ) -> dict[str, Array]:
    """Returns `diffusion`, and `refined_perceptual` if there is a distance.

    Some of the images are denoised without their condition.
    """
    n, keys = len(images), jax.random.split(key, 3)
    dropout = self.condition_dropout
    seen = {} if inputs is None else {'inputs': inputs}
    use_condition = ~jax.random.bernoulli(keys[0], dropout, (n,))
    times = draw_times(keys[1], n, self.training.uniform_fraction)
    noise = jax.random.normal(keys[2], images.shape, jnp.float32)

    def predict(noisy, t):
      return self.unet(
        noisy, t, 2 * first - 1, quantized, use_condition, **seen
      )

    losses, estimates = diffusion_loss(
      predict, self.schedule, 2 * images - 1, times, noise
    )
    terms = {'diffusion': jnp.mean(losses)}
    if distance:
      terms['refined_perceptual'] = distance(images, (estimates + 1) / 2)
    return terms

  def sample(
    self,
    quantized: Array,
    draw: Draw,
    settings: SamplingSettings,
    inputs: Array | None = None,
  ) -> Array:
    """Samples images that agree with the first estimate.

    Known pixels of inputs are pasted at every step (C. Saharia et al.,
    "Palette", SIGGRAPH 2022).
    """
    seen = {} if inputs is None else {'inputs': inputs}
    first, schedule = self(quantized, **seen), self.schedule
    noise = draw.normal(first.shape[1:], settings.seed)
    # JAX traces the steps, and a bound module must not be traced.
    unet, variables = self.unet.unbind()

    def predict(x, t, use_condition):
      times, use_condition = (
        jnp.full(len(x), value) for value in (t, use_condition)
      )
      return unet.apply(
        variables, x, times, 2 * first - 1, quantized, use_condition, **seen
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
      image = jnp.clip(schedule.image_of(x, v, t), -1, 1)
      if inputs is not None:
        image = 2 * paste((image + 1) / 2, inputs) - 1
      return image

    images = sample(denoise, schedule, noise, settings.steps, settings.solver)
    images = (images + 1) / 2
    return images if inputs is None else paste(images, inputs)

  def check(self, settings: SamplingSettings) -> None:
    """Raises InputError for guidance without condition dropout in training."""
    if settings.guidance != 1 and not self.condition_dropout:
      raise InputError(
        f'decoder.sampling.guidance={settings.guidance:g} needs a model '
        'trained with decoder.condition_dropout above 0: this one has never '
        'decoded without its code'
      )

  def describe(self, settings: SamplingSettings) -> dict[str, Any]:
    return {
      'decoder': 'diffusion, one sample an image; `initial` is its beginning',
      'sampling': dataclasses.asdict(settings),
    }
