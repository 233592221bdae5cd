"""The discriminator: its losses, its step, its gradient for the autoencoder.

I. Goodfellow et al., NeurIPS 2014; as P. Esser, R. Rombach and B. Ommer use it
for VQGAN, CVPR 2021 (section 3.1), and LASERS for DL-GAN, arXiv 2409.11184.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from lasers_jax.core.ranges import Amount, Count, Decay, Positive, Whole
from lasers_jax.errors import InputError
from lasers_jax.networks.discriminators import DISCRIMINATORS

_LOGIT_DECAY = 0.99  # of LeCAM's averages of logits, and of the accuracy
_MOST_WEIGHT = 1e4
_BEATEN = 0.98  # of all logits on the right side of zero


@dataclasses.dataclass(frozen=True)
class DiscriminatorSettings:
  """Settings of the discriminator and of the adversarial loss.

  Attributes:
    name: 'patchgan' or 'stylegan'.
    channels, num_downsamples: of that network.
    loss: 'hinge' or 'non_saturating'.
    weight: of the adversarial loss of the autoencoder.
    adaptive: whether to multiply it by |∇ of the other losses| / |∇ of the
      adversarial one|, both by the decoder's last layer (VQGAN equation 7).
    start: the step at which the discriminator begins to learn.
    warmup: steps that it learns before its loss reaches the autoencoder.
    r1: weight γ of the penalty γ/2 |∇D(x)|² at real images (L. Mescheder et
      al., ICML 2018, equation 9).
    lecam: weight of the distance of logits from their averages (H.-Y. Tseng et
      al., CVPR 2021, equation 5), for small data sets.
    learning_rate, b1, b2: of the Adam of the discriminator.
  """

  name: str = 'patchgan'
  channels: Count = 64
  num_downsamples: Whole = 3
  loss: str = 'hinge'
  weight: Amount = 0.8
  adaptive: bool = True
  start: Whole = 0
  warmup: Whole = 0
  r1: Amount = 0.0
  lecam: Amount = 0.0
  learning_rate: Positive = 1e-4
  b1: Decay = 0.5
  b2: Decay = 0.9

  def __post_init__(self):
    for key, value, table in (
      ('name', self.name, DISCRIMINATORS),
      ('loss', self.loss, LOSSES),
    ):
      if value not in table:
        raise InputError(
          f'discriminator.{key} must be one of {", ".join(table)}: {value!r}'
        )


class AdversaryState(flax.struct.PyTreeNode):
  """The state of a discriminator between steps."""

  params: Any
  opt_state: Any
  real_logit: Array  # moving averages
  fake_logit: Array
  accuracy: Array


class Adversary(NamedTuple):
  """A discriminator, its settings and its optimizer."""

  module: nn.Module
  settings: DiscriminatorSettings
  optimizer: optax.GradientTransformation


def make_adversary(settings: DiscriminatorSettings) -> Adversary:
  """Builds the discriminator of a run."""
  kind = DISCRIMINATORS[settings.name]
  module = kind(
    channels=settings.channels, num_downsamples=settings.num_downsamples
  )
  optimizer = optax.adam(settings.learning_rate, settings.b1, settings.b2)
  return Adversary(module, settings, optimizer)


def start(adversary: Adversary, images: Array, key: Array) -> AdversaryState:
  """Draws the weights of a discriminator of images [B, h, w, 3].

  Raises InputError where the images are too small for it.
  """
  params = adversary.module.init(key, images[:1])['params']
  zero = jnp.zeros((), jnp.float32)
  return AdversaryState(
    params, adversary.optimizer.init(params), zero, zero, zero
  )


def discriminator_step(
  adversary: Adversary, state: AdversaryState, real: Array, fake: Array
) -> tuple[AdversaryState, Array, dict[str, Array]]:
  """Updates the discriminator on a batch, and returns the image gradient.

  Both come from one forward pass, with the weights before the step.

  Args:
    real, fake: images [B, h, w, 3] in [0, 1].

  Returns:
    The new state; the gradient of the autoencoder's adversarial loss by `fake`
    [B, h, w, 3]; and metrics.
  """
  settings = adversary.settings
  of_discriminator, of_autoencoder = LOSSES[settings.loss]

  def logits(params, images):
    return adversary.module.apply({'params': params}, images)

  def loss(real_logits, fake_logits):
    value = of_discriminator(real_logits, fake_logits)
    apart = lecam(real_logits, fake_logits, state.real_logit, state.fake_logit)
    return value + settings.lecam * apart

  real_logits, of_real = jax.vjp(lambda p: logits(p, real), state.params)
  fake_logits, of_fake = jax.vjp(logits, state.params, fake)
  value, by_logits = jax.value_and_grad(loss, (0, 1))(real_logits, fake_logits)
  gradients = jax.tree.map(
    jnp.add, of_real(by_logits[0])[0], of_fake(by_logits[1])[0]
  )
  metrics = {}
  if settings.r1:
    penalty, more = jax.value_and_grad(r1_penalty, 1)(
      logits, state.params, real
    )
    gradients = jax.tree.map(lambda a, b: a + settings.r1 * b, gradients, more)
    metrics['r1'] = penalty
  deceived, by_fake = jax.value_and_grad(of_autoencoder)(fake_logits)
  _, image_gradient = of_fake(by_fake)

  updates, opt_state = adversary.optimizer.update(gradients, state.opt_state)
  right = (jnp.mean(real_logits > 0) + jnp.mean(fake_logits < 0)) / 2
  state = AdversaryState(
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
    real_logit=_follow(state.real_logit, jnp.mean(real_logits)),
    fake_logit=_follow(state.fake_logit, jnp.mean(fake_logits)),
    accuracy=_follow(state.accuracy, right),
  )
  metrics |= {
    'discriminator': value,
    'adversarial': deceived,
    'real_logit': jnp.mean(real_logits),
    'fake_logit': jnp.mean(fake_logits),
    'discriminator_accuracy': state.accuracy,
  }
  return state, image_gradient, metrics


def scheduled_discriminator_step(
  adversary: Adversary,
  state: AdversaryState,
  real: Array,
  fake: Array,
  step: Array,
) -> tuple[AdversaryState, Array, dict[str, Array]]:
  """Takes a `discriminator_step` from `start` on; changes nothing before.

  The gradient is zero until the warm-up is over.
  """
  began = step >= adversary.settings.start
  heard = step >= adversary.settings.start + adversary.settings.warmup
  # No lax.cond: within one, XLA's convolutions backwards take ten times as long
  # on CPUs (jax issue 12868).
  changed, image_gradient, metrics = discriminator_step(
    adversary, state, real, fake
  )
  state = jax.tree.map(
    lambda new, old: jnp.where(began, new, old), changed, state
  )
  metrics = {name: jnp.where(began, x, 0) for name, x in metrics.items()}
  return state, jnp.where(heard, image_gradient, 0), metrics


def adaptive_weight(others: Array, adversarial: Array) -> Array:
  """Returns |others| / (|adversarial| + 1e-4), at most 1e4 (VQGAN equation 7).

  Args:
    others, adversarial: gradients by the decoder's last layer.
  """
  norms = (jnp.sqrt(jnp.sum(x**2)) for x in (others, adversarial))
  a, b = norms
  return jnp.clip(a / (b + 1e-4), 0, _MOST_WEIGHT)


def r1_penalty(logits, params: Any, real: Array) -> Array:
  """Returns the mean over images of |∇D(x)|² / 2, D the sum of the logits."""
  gradient = jax.grad(lambda images: jnp.sum(logits(params, images)))(real)
  return jnp.mean(jnp.sum(gradient**2, axis=(1, 2, 3))) / 2


def lecam(
  real_logits: Array, fake_logits: Array, real_mean: Array, fake_mean: Array
) -> Array:
  """Returns the mean squares of logits beyond the averages of the other side.

  As in the authors' code, logits that are not beyond count as zero.
  """
  above = jnp.mean(nn.relu(real_logits - fake_mean) ** 2)
  below = jnp.mean(nn.relu(real_mean - fake_logits) ** 2)
  return above + below


def advice(metrics: dict[str, float]) -> str | None:
  """Returns advice where the discriminator wins; None where it does not."""
  accuracy = metrics.get('discriminator_accuracy', 0.0)
  if accuracy < _BEATEN:
    return None
  return (
    f'the discriminator wins: {accuracy:.0%} of its logits are right; lower '
    'discriminator.learning_rate, set discriminator.r1=10 or '
    'discriminator.lecam=0.001, or let it start later'
  )


def _follow(average: Array, value: Array) -> Array:
  return _LOGIT_DECAY * average + (1 - _LOGIT_DECAY) * value


def _hinge(real: Array, fake: Array) -> Array:
  return (jnp.mean(nn.relu(1 - real)) + jnp.mean(nn.relu(1 + fake))) / 2


def _logistic(real: Array, fake: Array) -> Array:
  return jnp.mean(nn.softplus(-real)) + jnp.mean(nn.softplus(fake))


# Of the discriminator, by real and fake logits; of the autoencoder, by fake.
LOSSES = {
  'hinge': (_hinge, lambda fake: -jnp.mean(fake)),
  'non_saturating': (_logistic, lambda fake: jnp.mean(nn.softplus(-fake))),
}
