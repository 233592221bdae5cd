"""The discriminator's step, and what the autoencoder hears of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.training import adversarial
from lasers_jax.training.adversarial import (
  LOSSES,
  DiscriminatorSettings,
  adaptive_weight,
  advice,
  discriminator_step,
  lecam,
  make_adversary,
  r1_penalty,
  scheduled_discriminator_step,
)

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.random((2, 3, 8, 8, 3), np.float32)
LOGITS = RNG.standard_normal((2, 3, 2, 2)).astype(np.float32) * 2


class Small(nn.Module):
  """A discriminator that compiles fast, and is not linear."""

  @nn.compact
  def __call__(self, images):
    x = nn.Conv(4, (3, 3))(2 * images - 1)
    return nn.Conv(1, (3, 3))(nn.tanh(x))[..., 0]


def adversary(**fields):
  made = make_adversary(DiscriminatorSettings(**fields))
  return made._replace(module=Small())


def started(made):
  return adversarial.start(made, jnp.asarray(REAL), jax.random.key(0))


@pytest.mark.parametrize('loss', LOSSES)
def test_losses_are_those_of_pytorch(loss):
  torch = pytest.importorskip('torch')
  functional = torch.nn.functional
  real, fake = (torch.from_numpy(x) for x in LOGITS)
  if loss == 'hinge':
    of_discriminator = (
      functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    ) / 2
    of_autoencoder = -fake.mean()
  else:
    entropy = functional.binary_cross_entropy_with_logits
    ones = torch.ones_like(real)
    of_discriminator = entropy(real, ones) + entropy(fake, 0 * ones)
    of_autoencoder = entropy(fake, ones)
  ours = LOSSES[loss]
  np.testing.assert_allclose(ours[0](*LOGITS), of_discriminator, rtol=1e-5)
  np.testing.assert_allclose(ours[1](LOGITS[1]), of_autoencoder, rtol=1e-5)


def test_the_penalty_is_that_of_pytorch():
  torch = pytest.importorskip('torch')
  made = adversary()
  params = started(made).params
  ours = r1_penalty(
    lambda p, x: made.module.apply({'params': p}, x), params, REAL
  )
  x = torch.from_numpy(REAL).permute(0, 3, 1, 2).requires_grad_()
  h = 2 * x - 1
  for i, name in enumerate(('Conv_0', 'Conv_1')):
    kernel = np.array(params[name]['kernel']).transpose(3, 2, 0, 1)
    bias = torch.from_numpy(np.array(params[name]['bias']))
    h = torch.tanh(h) if i else h
    h = torch.nn.functional.conv2d(h, torch.from_numpy(kernel), bias, padding=1)
  (gradient,) = torch.autograd.grad(h.sum(), x)
  expected = gradient.pow(2).sum((1, 2, 3)).mean() / 2
  np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize('loss', LOSSES)
def test_one_pass_gives_the_gradients_of_two(loss):
  """That of the discriminator's weights, and that of the copies."""
  made = adversary(loss=loss, r1=0.5, lecam=0.3)
  state = started(made).replace(
    real_logit=jnp.float32(0.4), fake_logit=jnp.float32(-0.2)
  )
  new, image_gradient, metrics = jax.jit(
    lambda s: discriminator_step(made, s, REAL, FAKE)
  )(state)

  def logits(params, images):
    return made.module.apply({'params': params}, images)

  def of_discriminator(params):
    real, fake = logits(params, REAL), logits(params, FAKE)
    value = LOSSES[loss][0](real, fake)
    value += 0.3 * lecam(real, fake, state.real_logit, state.fake_logit)
    return value + 0.5 * r1_penalty(logits, params, REAL)

  def of_autoencoder(fake):
    return LOSSES[loss][1](logits(state.params, fake))

  gradients = jax.grad(of_discriminator)(state.params)
  updates, _ = made.optimizer.update(gradients, state.opt_state)
  expected = jax.tree.map(jnp.add, state.params, updates)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    new.params,
    expected,
  )
  # Adam hides the size of gradients; its first moment shows it.
  jax.tree.map(
    lambda m, g: np.testing.assert_allclose(m, g / 2, rtol=1e-4, atol=1e-7),
    new.opt_state[0].mu,
    gradients,
  )
  by_copies = jax.grad(of_autoencoder)(jnp.asarray(FAKE))
  np.testing.assert_allclose(image_gradient, by_copies, rtol=1e-4, atol=1e-8)
  np.testing.assert_allclose(
    metrics['adversarial'], of_autoencoder(FAKE), rtol=1e-5
  )


def test_lecam_counts_what_lies_beyond():
  real, fake = np.array([2.0, -3.0]), np.array([1.0, -1.0])
  # Beyond -1: by 3 and not at all. Below 0.5: not at all and by 1.5.
  np.testing.assert_allclose(lecam(real, fake, 0.5, -1.0), (9 + 2.25) / 2)


def test_the_averages_of_logits_follow():
  made = adversary()
  state = started(made)
  new, _, metrics = discriminator_step(made, state, REAL, FAKE)
  for name in 'real_logit', 'fake_logit':
    np.testing.assert_allclose(
      getattr(new, name), 0.01 * metrics[name], rtol=1e-5
    )


def test_it_starts_and_is_heard_in_time():
  made = adversary(start=5, warmup=2)
  state = started(made)
  act = jax.jit(
    lambda step: scheduled_discriminator_step(made, state, REAL, FAKE, step)
  )
  learns, heard = [], []
  for step in (4, 5, 6, 7):
    new, image_gradient, metrics = act(step)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state, new)
    learns.append(any(jax.tree.leaves(moved)))
    heard.append(bool(jnp.any(image_gradient != 0)))
    assert bool(metrics['adversarial'] != 0) == learns[-1]
  assert learns == [False, True, True, True]
  assert heard == [False, False, False, True]


def test_the_adaptive_weight():
  others, adversarial_one = np.array([3.0, 4.0]), np.array([[0.0, 2.0]])
  weight = adaptive_weight(others, adversarial_one)
  np.testing.assert_allclose(weight, 5 / 2.0001, rtol=1e-6)
  assert adaptive_weight(others, np.zeros(3)) == 1e4


def test_advice_where_the_discriminator_wins():
  assert advice({'loss': 1.0}) is None
  assert advice({'discriminator_accuracy': 0.9}) is None
  line = advice({'discriminator_accuracy': 0.995})
  assert 'the discriminator wins: 100% of its logits are right' in line
  assert 'discriminator.r1' in line


@pytest.mark.parametrize(
  'fields, line',
  [
    ({'name': 'gan'}, "name must be one of patchgan, stylegan: 'gan'"),
    ({'loss': 'l2'}, "loss must be one of hinge, non_saturating: 'l2'"),
  ],
)
def test_bad_settings(fields, line):
  with pytest.raises(InputError, match=line):
    DiscriminatorSettings(**fields)
