"""What training minimizes: a weighted sum of named terms."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from lasers_jax.core.ranges import Amount, Number, Positive, Share
from lasers_jax.diffusion import Schedule, diffusion_loss, draw_times
from lasers_jax.errors import InputError
from lasers_jax.networks.autoencoder import Autoencoder, Output
from lasers_jax.pretrained import load_perceptual

PIXEL_LOSSES = {
  'mse': lambda x, y: jnp.mean((x - y) ** 2, axis=(1, 2, 3)),
  'l1': lambda x, y: jnp.mean(jnp.abs(x - y), axis=(1, 2, 3)),
}
OF_IMAGES = ('pixel', 'perceptual', 'diffusion', 'refined_perceptual')
# These two terms are made only where they have a weight.
REFINED = OF_IMAGES[-1]
DECODER_NORM = 'decoder_norm'


@dataclasses.dataclass(frozen=True)
class LossSettings:
  """What the loss is made of.

  Attributes:
    pixel: 'mse' or 'l1', on images in [0, 1].
    weights: the weight of each term: `pixel`; each loss of the bottleneck under
      its own name; with a perceptual network, `perceptual`; with a diffusion
      decoder, `diffusion`; with both, also `refined_perceptual` (of the images
      that it estimates in one step), which may be left out, as may
      `decoder_norm`, half the sum of the squares of the decoder's weights. None
      is negative but that of `size`, see `bottlenecks.lattice`.
    perceptual: the network that compares images as the eye does, a name in
      `networks.features.PERCEPTUAL`; '' for none.
    perceptual_weights: a file of its weights; '' for those of a package.
  """

  pixel: str = 'mse'
  weights: Annotated[Mapping[str, Amount], {'size': Number}] = (
    dataclasses.field(default_factory=lambda: {'pixel': 1.0})
  )
  perceptual: str = ''
  perceptual_weights: str = ''

  def __post_init__(self):
    if self.pixel not in PIXEL_LOSSES:
      raise InputError(
        f'loss.pixel must be one of {tuple(PIXEL_LOSSES)}: {self.pixel!r}'
      )
    if self.perceptual_weights and not self.perceptual:
      raise InputError('loss.perceptual_weights needs loss.perceptual')
    if not any(self.weights.values()):
      raise InputError('loss.weights are all 0: nothing would be learned')


@dataclasses.dataclass(frozen=True)
class DiffusionSettings:
  """How the diffusion decoder is trained.

  Attributes:
    signal_scale: see `diffusion.Schedule`.
    uniform_fraction: see `diffusion.draw_times`.
  """

  signal_scale: Positive = 1.0
  uniform_fraction: Share = 1.0

  @property
  def schedule(self) -> Schedule:
    return Schedule(self.signal_scale)


class Objective(NamedTuple):
  """What a run minimizes.

  Attributes:
    diffusion: read where the model has a part that refines.
    perceptual: a module (images, images) -> distances [B]; None where the loss
      has no such term.
  """

  model: Autoencoder
  loss: LossSettings
  diffusion: DiffusionSettings | None = None
  perceptual: nn.Module | None = None

  def __call__(
    self, params: Any, codebook: Any, images: Array, key: Array, frozen: Any
  ) -> tuple[Array, tuple[dict[str, Array], Output, dict]]:
    """Computes the loss of a batch of images [B, h, w, 3] in [0, 1].

    Args:
      frozen: the parameters of the perceptual network, which never change.

    Returns:
      The loss, and (metrics, forward pass, new codebook): metrics are the
      terms, unweighted, and the bottleneck's statistics, all scalars.
    """
    output, updates = self.model.apply(
      {'params': params, 'codebook': codebook},
      images,
      train=True,
      mutable=['codebook'],
      rngs={'bottleneck': key},
    )
    pixels = PIXEL_LOSSES[self.loss.pixel](images, output.images)
    terms = {'pixel': jnp.mean(pixels), **output.latent.losses}
    if self.perceptual:
      terms['perceptual'] = self._distance(frozen, images, output.images)
    if self.model.refine:
      key = jax.random.fold_in(key, 1)
      terms |= self._refinement(params, images, output, key, frozen)
    weights = self.loss.weights
    if DECODER_NORM in weights:
      squares = optax.tree.norm(params['decoder'], squared=True)
      terms[DECODER_NORM] = squares / 2
    loss = sum(weights[name] * term for name, term in terms.items())
    metrics = {
      'loss': loss,
      **terms,
      'psnr': jnp.mean(training_psnr(images, output.images)),
      **output.latent.stats,
    }
    return loss, (metrics, output, updates.get('codebook', codebook))

  def _distance(self, frozen: Any, a: Array, b: Array) -> Array:
    return jnp.mean(self.perceptual.apply({'params': frozen}, a, b))

  def _refinement(
    self, params: Any, images: Array, output: Output, key: Array, frozen: Any
  ) -> dict[str, Array]:
    """The terms of the diffusion decoder; some see no condition."""
    n, keys = len(images), jax.random.split(key, 3)
    use_condition = ~jax.random.bernoulli(
      keys[0], self.model.refine.condition_dropout, (n,)
    )
    times = draw_times(keys[1], n, self.diffusion.uniform_fraction)
    noise = jax.random.normal(keys[2], images.shape, jnp.float32)

    def predict(noisy, t):
      variables = {'params': params}
      return self.model.apply(
        variables, noisy, t, output, use_condition, method='denoise'
      )

    losses, estimates = diffusion_loss(
      predict, self.diffusion.schedule, 2 * images - 1, times, noise
    )
    terms = {'diffusion': jnp.mean(losses)}
    if REFINED in self.loss.weights:
      estimates = (estimates + 1) / 2
      terms[REFINED] = self._distance(frozen, images, estimates)
    return terms

  def check_weights(self, side: int) -> None:
    """Raises InputError unless there is just one weight for each term.

    Also where images [B, side, side, 3] are too small for the networks.
    """
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    output, _ = jax.eval_shape(
      self.model.init_with_output, jax.random.key(0), images
    )
    if self.perceptual:
      jax.eval_shape(self.perceptual.init, jax.random.key(0), images, images)
    terms = ['pixel', *output.latent.losses]
    terms += ['perceptual'] if self.loss.perceptual else []
    terms += ['diffusion'] if self.model.refine else []
    may = [DECODER_NORM]
    may += [REFINED] if self.loss.perceptual and self.model.refine else []
    missing = [name for name in terms if name not in self.loss.weights]
    unread = [x for x in self.loss.weights if x not in terms + may]
    if missing or unread:
      raise InputError(
        f'loss.weights must name the terms {", ".join(terms)}'
        + (f'; missing: {", ".join(missing)}' if missing else '')
        + (f'; nothing reads: {", ".join(unread)}' if unread else '')
      )


def make_objective(
  model: Autoencoder, loss: LossSettings, diffusion: DiffusionSettings
) -> tuple[Objective, Any]:
  """Builds what a run minimizes, and reads the weights of what compares.

  Returns:
    The objective, and the parameters of its perceptual network or None.

  Raises:
    InputError: there are no such weights, or of another shape.
  """
  if not loss.perceptual:
    return Objective(model, loss, diffusion), None
  path = loss.perceptual_weights or None
  module, params = load_perceptual(loss.perceptual, path)
  return Objective(model, loss, diffusion, module), params


def training_psnr(images: Array, reconstructions: Array) -> Array:
  """PSNR of each image [B], before rounding to what a file would hold."""
  clipped = jnp.clip(jax.lax.stop_gradient(reconstructions), 0, 1)
  return -10 * jnp.log10(PIXEL_LOSSES['mse'](images, clipped) + 1e-12)
