"""What training minimizes: a weighted sum of named terms."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.errors import InputError
from lasers_jax.networks.autoencoder import Autoencoder, Output

PIXEL_LOSSES = {
  'mse': lambda x, y: jnp.mean((x - y) ** 2, axis=(1, 2, 3)),
  'l1': lambda x, y: jnp.mean(jnp.abs(x - y), axis=(1, 2, 3)),
}


@dataclasses.dataclass(frozen=True)
class LossSettings:
  """What the loss is made of.

  Attributes:
    pixel: 'mse' or 'l1', on images in [0, 1].
    weights: the weight of each term: `pixel`, and each loss of the bottleneck
      under its own name.
  """

  pixel: str = 'mse'
  weights: Mapping[str, float] = dataclasses.field(
    default_factory=lambda: {'pixel': 1.0}
  )

  def __post_init__(self):
    if self.pixel not in PIXEL_LOSSES:
      raise InputError(
        f'loss.pixel must be one of {tuple(PIXEL_LOSSES)}: {self.pixel!r}'
      )


def objective(
  model: Autoencoder,
  settings: LossSettings,
  params,
  codebook,
  images: Array,
  key: Array,
) -> tuple[Array, tuple[dict[str, Array], Output, dict]]:
  """Computes the loss of a batch of images [B, h, w, 3] in [0, 1].

  Perceptual and adversarial terms join the dictionary of terms here.

  Returns:
    The loss, and (metrics, forward pass, new codebook): metrics are the terms,
    unweighted, and the bottleneck's statistics, all scalars.
  """
  output, updates = model.apply(
    {'params': params, 'codebook': codebook},
    images,
    train=True,
    mutable=['codebook'],
    rngs={'bottleneck': key},
  )
  terms = {
    'pixel': jnp.mean(PIXEL_LOSSES[settings.pixel](images, output.images)),
    **output.latent.losses,
  }
  loss = sum(settings.weights[name] * term for name, term in terms.items())
  metrics = {
    'loss': loss,
    **terms,
    'psnr': jnp.mean(training_psnr(images, output.images)),
    **output.latent.stats,
  }
  return loss, (metrics, output, updates.get('codebook', codebook))


def training_psnr(images: Array, reconstructions: Array) -> Array:
  """PSNR of each image [B], before rounding to what a file would hold."""
  clipped = jnp.clip(jax.lax.stop_gradient(reconstructions), 0, 1)
  return -10 * jnp.log10(PIXEL_LOSSES['mse'](images, clipped) + 1e-12)


def check_weights(
  model: Autoencoder, settings: LossSettings, side: int
) -> None:
  """Raises InputError unless there is just one weight for each term."""
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
  terms = ['pixel', *output.latent.losses]
  missing = [name for name in terms if name not in settings.weights]
  unread = [name for name in settings.weights if name not in terms]
  if missing or unread:
    raise InputError(
      f'loss.weights must name the terms {", ".join(terms)}'
      + (f'; missing: {", ".join(missing)}' if missing else '')
      + (f'; nothing reads: {", ".join(unread)}' if unread else '')
    )
