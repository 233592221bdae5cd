"""Draws maps of latents by flow matching with a transformer.

W. Peebles and S. Xie, "Scalable diffusion models with transformers" (DiT,
arXiv 2212.09748), learn the velocity of straight paths from data to noise (Y.
Lipman et al., arXiv 2210.02747; N. Ma et al., SiT, arXiv 2401.08740), at times
of which most are in the middle (P. Esser et al., arXiv 2403.03206). Here t is 0
at the data and 1 at the noise.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.bottlenecks.base import like_sites
from lasers_jax.bottlenecks.patches import from_patches, to_patches
from lasers_jax.core.ranges import Count, Fraction, Positive
from lasers_jax.diffusion import SOLVERS, Straight, draw_times, sample, waves
from lasers_jax.errors import InputError, unknown
from lasers_jax.priors.maps.base import DrawingSettings, Known, MapPrior
from lasers_jax.priors.maps.transformer import Transformer
from lasers_jax.priors.vector.gaussian import NO_VARIANCE, moments

_CHOICES = {'normalise': ('channel', 'pca'), 'predict': ('v', 'x')}
# An error of x̂ is divided by t, or by this where t is less (T. Li and K. He,
# arXiv 2511.13720).
_LEAST_TIME = 0.05


@dataclasses.dataclass(frozen=True)
class FlowDrawing(DrawingSettings):
  """Settings by which a flow draws.

  Attributes:
    solver: 'ddim' (Euler's method), 'heun' or 'dpmpp_2m'.
    steps: of the solver.
    interval_low, interval_high: the shares of noise between which guidance acts
      (T. Kynkäänniemi et al., arXiv 2404.07724); outside, the network is called
      with the class alone, which costs half.
  """

  solver: str = 'heun'
  steps: Count = 25
  interval_low: Fraction = 0.1
  interval_high: Fraction = 0.9

  def __post_init__(self):
    super().__post_init__()
    if self.solver not in SOLVERS:
      raise unknown('drawing.solver', self.solver, SOLVERS)
    if self.interval_low >= self.interval_high:
      raise InputError(
        f'drawing.interval_low={self.interval_low:g} must be less than '
        f'drawing.interval_high={self.interval_high:g}: without guidance, set '
        'drawing.guidance=1'
      )


class Flow(MapPrior):
  """Models latents [B, H, W, D] by the velocity of noise that becomes them.

  The network sees latents of mean 0 and variance 1. What makes them so is
  learned by `initialize` from the latents of training, and lies in the
  collection `codebook`. The velocity error of `__call__` is a mean over
  numbers, about 2 at the start.

  Attributes:
    D: width of a latent vector.
    normalise: 'channel' scales each channel; 'pca' turns the latents to their
      principal directions, and scales these. What never changes stays at its
      mean.
    patch: side p of the p×p latents that are a token of the transformer, whose
      width is best at least p²·D.
    predict: what the network's output is: 'v', the velocity, or 'x', the
      latents, which are easier where D is large (T. Li and K. He, arXiv
      2511.13720). The loss is that of the velocity in both.
    shift: see `diffusion.Straight`; in training and in drawing.
  """

  GIVEN: ClassVar = ('sites', 'classes', 'D')
  VIEWS: ClassVar = ('z', 'quantized')
  Drawing: ClassVar = FlowDrawing

  dropout: Fraction = 0.0
  D: Count = 16
  normalise: str = 'channel'
  patch: Count = 1
  predict: str = 'v'
  shift: Positive = 1.0

  def setup(self):
    self.check()
    eye = functools.partial(jnp.eye, self.D, dtype=jnp.float32)
    zeros = functools.partial(jnp.zeros, (self.D,), jnp.float32)
    self.mean = self.variable('codebook', 'mean', zeros)
    self.whitening = self.variable('codebook', 'whitening', eye)
    self.coloring = self.variable('codebook', 'coloring', eye)
    dense = {'use_bias': False, 'dtype': self.dtype}
    self.embed = nn.Dense(self.width, **dense)
    self.embed_class = nn.Embed(self.classes + 1, self.width, self.dtype)
    self.embed_time = nn.Sequential(
      [nn.Dense(self.width, **dense), nn.silu, nn.Dense(self.width, **dense)]
    )
    self.transformer = Transformer(
      self.width,
      self.layers,
      self.heads,
      self.dropout,
      self.remat,
      self.dtype,
      conditioned=True,
    )
    self.to_output = nn.Dense(
      self.patch**2 * self.D,
      use_bias=False,
      kernel_init=nn.initializers.zeros,
    )

  def check(self) -> None:
    super().check()
    for name, words in _CHOICES.items():
      if getattr(self, name) not in words:
        raise unknown(f'prior.{name}', getattr(self, name), words)
    height, width = self.sites
    if height % self.patch or width % self.patch:
      raise InputError(
        f'prior.patch={self.patch} must divide the sides of the latents, '
        f'which are {height}x{width}'
      )

  @property
  def path(self) -> Straight:
    """Returns the way from latents to noise."""
    return Straight(self.shift)

  def initialize(
    self, view: np.ndarray, quantized: np.ndarray | None = None
  ) -> None:
    """Learns to normalise from latents [n, H, W, D]; writes `codebook`."""
    del quantized
    mean, covariance = moments(np.asarray(view).reshape(-1, self.D))
    if self.normalise == 'pca':
      variances, axes = np.linalg.eigh(covariance)
      # A channel that never changes is on no axis, not on 1e-16 of some.
      axes = np.where(covariance.diagonal()[:, None] > 0, axes, 0)
      least = np.full(self.D, NO_VARIANCE * variances[-1])
    else:
      variances, axes = covariance.diagonal(), np.eye(self.D)
      least = NO_VARIANCE * np.finfo(np.float32).eps * mean**2  # rounding
    deviations = np.sqrt(np.where(variances > least, variances, 0))
    inverse = np.divide(
      1, deviations, out=np.zeros(self.D), where=deviations > 0
    )
    self.mean.value = jnp.asarray(mean, jnp.float32)
    self.whitening.value = jnp.asarray(axes * inverse, jnp.float32)
    self.coloring.value = jnp.asarray((axes * deviations).T, jnp.float32)

  def normalized(self, view: Array) -> Array:
    """Returns latents [..., D] as the network sees them, float32."""
    centred = view.astype(jnp.float32) - like_sites(self.mean.value, view)
    return _map(centred, self.whitening.value)

  def denormalized(self, x: Array) -> Array:
    """Undoes `normalized`."""
    return like_sites(self.mean.value, x) + _map(x, self.coloring.value)

  def __call__(
    self, view: Array, labels: Array, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Returns the velocity error of each image [B] at a random time."""
    labels = self.drop_labels(labels, train)
    of_times, of_noise = jax.random.split(self.make_rng('prior'))
    times = draw_times(of_times, len(view), uniform_fraction=0.0)
    noise = jax.random.normal(of_noise, view.shape, jnp.float32)
    return self._losses(view, labels, times, noise, train), {}

  def losses_at(
    self, view: Array, labels: Array, times: Array, keys: Array
  ) -> Array:
    """Returns the velocity error of each image [B], without dropout.

    Args:
      times: float32 [B], in [0, 1], before `shift`.
      keys: [B], of the noise of each image.
    """
    noise = _noise(keys, view.shape[1:])
    return self._losses(view, labels, times, noise, train=False)

  def estimate(
    self, mixed: Array, times: Array, labels: Array, train: bool = False
  ) -> Array:
    """Returns x̂, the normalised latents in x_t [B, H, W, D] at times [B]."""
    output = self._output(mixed, times, labels, train)
    if self.predict == 'x':
      return output
    return self.path.image_of(mixed, output, times[:, None, None, None])

  def draw(
    self,
    keys: Array,
    labels: Array,
    drawing: DrawingSettings,
    known: Known | None = None,
  ) -> Array:
    """Draws latents float32 [B, H, W, D]; see `MapPrior.draw`.

    Raises:
      InputError: sites are given.
    """
    if known is not None:
      raise InputError(
        'a flow cannot complete maps of which sites are given: priors '
        'masked and ar can'
      )
    noise = _noise(keys, (*self.sites, self.D))
    # JAX traces the steps, and a bound module must not be traced.
    module, variables = self.unbind()

    def estimate(x: Array, t: Array, labels: Array) -> Array:
      times = jnp.full(len(x), t)
      return module.apply(variables, x, times, labels, method='estimate')

    denoise = guided(estimate, self.path, labels, self.classes, drawing)
    x = sample(denoise, self.path, noise, drawing.steps, drawing.solver)
    return self.denormalized(x)

  def _losses(self, view, labels, times, noise, train) -> Array:
    """The velocity errors at times [B]."""
    x, t = self.normalized(view), times[:, None, None, None]
    mixed = self.path.mix(x, noise, t)
    output = self._output(mixed, times, labels, train)
    if self.predict == 'v':
      error = output - self.path.velocity(x, noise, t)
    else:
      _, level = self.path(t)
      error = (output - x) / jnp.maximum(level, _LEAST_TIME)
    return jnp.mean(error**2, axis=(1, 2, 3))

  def _output(self, mixed, times, labels, train=False) -> Array:
    """What the network predicts: float32 [B, H, W, D]."""
    tokens = to_patches(mixed, self.patch)
    b, h, w, _ = tokens.shape
    positions = jnp.indices((h, w)).reshape(1, 2, h * w).swapaxes(1, 2)
    _, level = self.path(times)
    condition = self.embed_time(waves(level)) + self.embed_class(labels)
    # Rotary positions are relative: where all is noise, no site knows its own.
    x = self.embed(tokens.reshape(b, h * w, -1))
    x += place_waves(positions, self.width).astype(self.dtype)
    x = self.transformer(x, positions, None, condition, train)
    output = self.to_output(x.astype(jnp.float32))
    return from_patches(output.reshape(b, h, w, -1), self.patch)


def place_waves(positions: Array, width: int) -> Array:
  """Returns sines and cosines of rows and columns [1, T, 2]: [1, T, width].

  Those of DiT: a quarter of the width each, of wavelengths from 2π to about
  20,000π.
  """
  quarter = width // 4
  rates = 1e4 ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
  angles = positions[..., None] * rates[None, None, None]
  waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
  return waves.reshape(*positions.shape[:2], width)


def guided(
  estimate: Callable[[Array, Array, Array], Array],
  path: Straight,
  labels: Array,
  none: int,
  drawing: FlowDrawing,
) -> Callable[[Array, Array], Array]:
  """Returns (x_t, t) -> x̂ = u + g (c - u), of all channels.

  Since x̂ is linear in the velocity, this guides the velocity just as much.

  Args:
    estimate: (x_t [B, ...], t, labels [B]) -> x̂ [B, ...]; called once a time,
      with both labels as one batch where guidance acts.
    labels: int32 [B], of c.
    none: the label of u.
  """

  def plain(x: Array, t: Array) -> Array:
    return estimate(x, t, labels)

  def both(x: Array, t: Array) -> Array:
    twice = jnp.concatenate([labels, jnp.full_like(labels, none)])
    c, u = jnp.split(estimate(jnp.concatenate([x, x]), t, twice), 2)
    return u + drawing.guidance * (c - u)

  def within(x: Array, t: Array) -> Array:
    _, level = path(t)
    acts = (drawing.interval_low <= level) & (level <= drawing.interval_high)
    return jax.lax.cond(acts, both, plain, x, t)

  return plain if drawing.guidance == 1 else within


def _noise(keys: Array, shape: tuple[int, ...]) -> Array:
  """Noise of each image, from its own key."""
  return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def _map(x: Array, matrix: Array) -> Array:
  return jnp.matmul(x, matrix, precision=jax.lax.Precision.HIGHEST)
