"""The loss of training: a weighted sum of named terms."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from lasers_jax.core.ranges import Amount, Number
from lasers_jax.degradations import Degradation, degrade, row_keys
from lasers_jax.errors import InputError
from lasers_jax.networks.autoencoder import Autoencoder, Output
from lasers_jax.pretrained import load_perceptual


def _mean(errors: Array, weights: Array | None) -> Array:
  """The mean of each image, weighted by [B, h, w, 1] where that is given."""
  if weights is None:
    return jnp.mean(errors, axis=(1, 2, 3))
  total = errors.shape[-1] * jnp.sum(weights, axis=(1, 2, 3))
  weighted = jnp.sum(weights * errors, axis=(1, 2, 3))
  return weighted / jnp.maximum(total, 1e-6)


PIXEL_LOSSES = {
  'mse': lambda x, y, weights=None: _mean((x - y) ** 2, weights),
  'l1': lambda x, y, weights=None: _mean(jnp.abs(x - y), weights),
}
LATENT = 'latent'  # a pixel loss without pixels
DECODER_NORM = 'decoder_norm'  # a term that exists where it has a weight


@dataclasses.dataclass(frozen=True)
class LossSettings:
  """Settings of the loss.

  Attributes:
    pixel: 'mse' or 'l1', on images in [0, 1]; 'latent', the mean square error
      of standardized latents before a frozen decoder.
    weights: the weight of each term: `pixel`; each loss of the bottleneck and
      of the decoder under its own name; with a perceptual network,
      `perceptual`. The decoder's `perceptual_terms` may be left out, as may
      `decoder_norm`, half the sum of the squares of the decoder's weights. No
      weight is negative except that of `size`, see `bottlenecks.lattice`.
    perceptual: the network of the perceptual loss, a name in
      `pretrained.perceptual.PERCEPTUAL`; '' for none.
    perceptual_weights: a file of its weights; '' takes those of a package.
  """

  pixel: str = 'mse'
  weights: Annotated[Mapping[str, Amount], {'size': Number}] = (
    dataclasses.field(default_factory=lambda: {'pixel': 1.0})
  )
  perceptual: str = ''
  perceptual_weights: str = ''

  def __post_init__(self):
    choices = *PIXEL_LOSSES, LATENT
    if self.pixel not in choices:
      raise InputError(f'loss.pixel must be one of {choices}: {self.pixel!r}')
    if self.perceptual_weights and not self.perceptual:
      raise InputError('loss.perceptual_weights needs loss.perceptual')
    if not any(self.weights.values()):
      raise InputError('loss.weights are all 0: nothing would be learned')


class Objective(NamedTuple):
  """The loss of a run, a function of parameters and images.

  Attributes:
    perceptual: a module (images, images) -> distances [B]; None without a
      perceptual loss.
    degradation: of the images that the encoder sees; None for none.
  """

  model: Autoencoder
  loss: LossSettings
  perceptual: nn.Module | None = None
  degradation: Degradation | None = None

  def __call__(
    self,
    params: Any,
    codebook: Any,
    images: Array,
    key: Array,
    perceptual_params: Any,
  ) -> tuple[Array, tuple[dict[str, Array], Output, dict]]:
    """Computes the loss of a batch of images [B, h, w, 3] in [0, 1].

    Args:
      perceptual_params: of the perceptual network; they are not trained.

    Returns:
      The loss, and (metrics, forward pass, new codebook): metrics are the
      terms, unweighted, and the bottleneck's statistics, all scalars.
    """
    inputs, pixel_weights = self.degraded(images, key)
    variables = {'params': params, 'codebook': codebook}
    forward = functools.partial(
      self.model.apply,
      variables,
      inputs,
      mutable=['codebook'],
      rngs={'bottleneck': key},
    )
    decodes = self.decodes
    output, updates = forward(train=True) if decodes else forward(method='code')

    def distance(a: Array, b: Array) -> Array:
      distances = self.perceptual.apply({'params': perceptual_params}, a, b)
      return jnp.mean(distances)

    weights = self.loss.weights
    pixels = self._errors(variables, images, output, pixel_weights)
    terms = {'pixel': jnp.mean(pixels), **output.latent.losses}
    if self.perceptual:
      terms['perceptual'] = distance(images, output.images)
    asked = weights.keys() & set(self.model.decoder.perceptual_terms)
    if decodes:
      terms |= self.model.apply(
        {'params': params},
        images,
        output,
        jax.random.fold_in(key, 1),
        distance if asked else None,
        inputs,
        method='decoder_losses',
      )
    if DECODER_NORM in weights:
      squares = optax.tree.norm(params['decoder'], squared=True)
      terms[DECODER_NORM] = squares / 2
    loss = sum(weights[name] * term for name, term in terms.items())
    metrics = {'loss': loss, **terms}
    if decodes:
      metrics['psnr'] = jnp.mean(training_psnr(images, output.images))
    metrics |= output.latent.stats
    return loss, (metrics, output, updates.get('codebook', codebook))

  def _errors(
    self, variables: Any, images: Array, output: Output, weights: Array | None
  ) -> Array:
    """The error of each image or of its latent: [B]."""
    if self.loss.pixel == LATENT:
      return self.model.apply(variables, output, method='latent_error')
    error = PIXEL_LOSSES[self.loss.pixel]
    return error(images, output.images, weights)

  @property
  def decodes(self) -> bool:
    """Returns whether a step needs images."""
    if self.loss.pixel != LATENT or self.perceptual:
      return True
    return self.model.decoder.has_losses

  def degraded(self, images: Array, key: Array) -> tuple[Array, Array | None]:
    """Returns what the encoder sees of images, and weights of their pixels.

    Args:
      images: [B, h, w, 3] in [0, 1].
      key: of the batch; a row's damage depends on it and the row's number.

    Returns:
      [B, h, w, channels], and [B, h, w, 1] or None where all count alike.
    """
    if self.degradation is None:
      return images, None
    keys = row_keys(jax.random.fold_in(key, 2), len(images))
    found = degrade(self.degradation, images, keys)
    # Where all are 1, sums of products would still round otherwise.
    weights = found.weights if self.degradation.weighs_pixels else None
    return found.inputs, weights

  def check_weights(self, side: int) -> list[str]:
    """Checks that each term has a weight, and each weight a term.

    Args:
      side: of the images [B, side, side, 3], on which the networks are tried.

    Returns:
      The terms, in the order in which a step computes them.

    Raises:
      InputError: a term or a weight is alone, or images are too small.
    """
    terms, may = self._terms(side)
    missing = [name for name in terms if name not in self.loss.weights]
    unread = [x for x in self.loss.weights if x not in terms + may]
    if missing or unread:
      raise InputError(
        f'loss.weights must name the terms {", ".join(terms)}'
        + (f'; missing: {", ".join(missing)}' if missing else '')
        + (f'; nothing reads: {", ".join(unread)}' if unread else '')
      )
    return terms + [name for name in may if name in self.loss.weights]

  def _terms(self, side: int) -> tuple[list[str], list[str]]:
    """Returns the terms that must have a weight, and those that may."""
    key = jax.random.key(0)
    images, inputs = (
      jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
      for channels in (3, self.model.channels)
    )
    output, variables = jax.eval_shape(self.model.init_with_output, key, inputs)

    def of_decoder(variables, images, output, inputs):
      return self.model.apply(
        variables, images, output, key, None, inputs, method='decoder_losses'
      )

    terms, may = [*output.latent.losses, 'pixel'], [DECODER_NORM]
    if self.perceptual:
      jax.eval_shape(self.perceptual.init, key, images, images)
      terms.append('perceptual')
      may += self.model.decoder.perceptual_terms
    terms += jax.eval_shape(of_decoder, variables, images, output, inputs)
    return terms, may


def make_objective(
  model: Autoencoder,
  loss: LossSettings,
  degradation: Degradation | None = None,
) -> tuple[Objective, Any]:
  """Builds the loss of a run, and reads the weights of its perceptual network.

  Returns:
    The objective, and the parameters of its perceptual network or None.

  Raises:
    InputError: the weights are missing, or of another shape.
  """
  if not loss.perceptual:
    return Objective(model, loss, None, degradation), None
  path = loss.perceptual_weights or None
  module, params = load_perceptual(loss.perceptual, path)
  return Objective(model, loss, module, degradation), params


def training_psnr(images: Array, reconstructions: Array) -> Array:
  """Returns the PSNR of each image, [B], before rounding to uint8."""
  clipped = jnp.clip(jax.lax.stop_gradient(reconstructions), 0, 1)
  return -10 * jnp.log10(PIXEL_LOSSES['mse'](images, clipped) + 1e-12)
