"""One step: what it changes, and what it gives."""

import itertools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lasers_jax.bottlenecks import Latent
from lasers_jax.core import sharding
from lasers_jax.core.images import to_float
from lasers_jax.decoders import Plain
from lasers_jax.experiment import loop
from lasers_jax.experiment.settings import from_config
from lasers_jax.networks.autoencoder import Output
from lasers_jax.training import adversarial
from lasers_jax.training.adversarial import (
  DiscriminatorSettings,
  make_adversary,
)
from lasers_jax.training.objective import LossSettings, Objective
from lasers_jax.training.optimizer import OptimizerSettings, make_optimizer
from lasers_jax.training.state import TrainState
from lasers_jax.training.step import make_train_step
from tests import tiny


class Toy(nn.Module):
  """Stands for an autoencoder: a linear map of each pixel, no code."""

  decoder: nn.Module = Plain(None)

  @property
  def bottleneck(self):
    return types.SimpleNamespace(revive_every=0)

  @nn.compact
  def __call__(self, images, train=False):
    x = nn.Dense(3)(images)
    self.variable('codebook', 'seen', jnp.zeros, ())
    return Output(x, x, Latent(x, None, {}, {}))

  def decoder_losses(self, *given):
    return {}


def toy_state(optimizer):
  variables = Toy().init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
  params = variables['params']
  return TrainState(
    step=jnp.int32(0),
    params=params,
    codebook=variables['codebook'],
    opt_state=optimizer.init(params),
    ema_params=params,
    key=jax.random.key(1),
  )


class Revived(Toy):
  """Of which every step replaces one row."""

  @property
  def bottleneck(self):
    return types.SimpleNamespace(revive_every=1)

  def revive(self, z):
    dense = self.get_variable('params', 'Dense_0')
    kernel = dense['kernel'].at[1].set(7.0)
    self.put_variable('params', 'Dense_0', {**dense, 'kernel': kernel})


def toy_steps(batches, ema=0.9, model=None, **optimizer):
  optimizer = make_optimizer(OptimizerSettings(**optimizer), 100)
  objective = Objective(model or Toy(), LossSettings())
  step = jax.jit(make_train_step(objective, optimizer, ema))
  states, metrics = [toy_state(optimizer)], []
  for batch in batches:
    state, values = step(states[-1], batch)
    states.append(state)
    metrics.append(values)
  return states, metrics


def assert_close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_two_half_batches_are_one_batch():
  images = tiny.images(8)
  _, half, full = toy_steps([images[:4], images[4:]], accumulate=2)[0]
  first, once = toy_steps([images])[0]
  assert_close(half.params, first.params, rtol=0)
  assert_close(full.params, once.params, atol=1e-6)


def test_averaged_weights_follow_fast_and_then_slowly():
  batches = [tiny.images(4, seed=i) for i in range(3)]
  states, _ = toy_steps(batches, ema=0.15, learning_rate=0.1)
  for t, (before, after) in enumerate(itertools.pairwise(states)):
    decay = min(0.15, (1 + t) / (10 + t))
    expected = jax.tree.map(
      lambda a, p, d=decay: d * a + (1 - d) * p,
      before.ema_params,
      after.params,
    )
    assert_close(after.ema_params, expected, rtol=1e-5, atol=1e-7)


def test_the_gradient_norm_is_before_clipping():
  images = tiny.images(4)
  states, (metrics,) = toy_steps([images], clip=1e-3)

  def loss(params):
    x = to_float(jnp.asarray(images))
    output = Toy().apply({**variables, 'params': params}, x)
    return jnp.mean((output.images - x) ** 2)

  variables = {'codebook': states[0].codebook}
  leaves = jax.tree.leaves(jax.grad(loss)(states[0].params))
  norm = np.sqrt(sum(np.sum(np.square(x)) for x in leaves))
  np.testing.assert_allclose(metrics['gradient_norm'], norm, rtol=1e-5)
  assert norm > 1e-2


def test_images_become_floats_in_0_1():
  x = to_float(jnp.asarray([0, 51, 255], jnp.uint8))
  assert x.dtype == jnp.float32
  np.testing.assert_allclose(x, [0, 0.2, 1])


@pytest.fixture(scope='module')
def tiny_steps(tiny_run):
  """Three steps from the first state of the tiny run, on eight devices."""
  run = from_config(tiny_run.config)
  mesh = sharding.make_mesh()
  places = sharding.state_shardings(tiny_run.first, mesh, 16)
  optimizer = make_optimizer(run.optimizer, run.steps)
  step = jax.jit(
    make_train_step(
      Objective(run.model, run.loss), optimizer, run.optimizer.ema
    ),
    in_shardings=(places, sharding.batch_sharding(mesh)),
    out_shardings=(places, sharding.replicated(mesh)),
    donate_argnums=0,
  )
  state = jax.jit(lambda state: state, out_shardings=places)(tiny_run.first)
  states, metrics = [tiny_run.first], []
  for i in range(3):
    images = {'image': tiny.images(8, seed=i)}
    state, values = step(state, loop.put_images(images, mesh))
    states.append(tiny.copied(state))
    metrics.append(jax.device_get(values))
  return types.SimpleNamespace(states=states, metrics=metrics)


def test_a_step_counts_and_moves_all_weights(tiny_steps):
  assert [int(s.step) for s in tiny_steps.states] == [0, 1, 2, 3]
  # Warm-up: the rate of the very first step is zero.
  for name in 'params', 'ema_params':
    before, after = (getattr(tiny_steps.states[i], name) for i in (1, 2))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(moved)), moved


def test_atoms_stay_on_the_sphere(tiny_steps):
  for state in tiny_steps.states:
    atoms = np.float64(state.params['bottleneck']['dictionary'])
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=0), 1, atol=1e-6)


def test_a_step_keeps_the_key(tiny_steps):
  first, *_, last = tiny_steps.states
  assert (jax.random.key_data(first.key) == jax.random.key_data(last.key)).all()


def test_the_average_of_what_is_revived_moves_along():
  images = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 4, 3), np.uint8)
  (_, plain, _), _ = toy_steps(images, learning_rate=0.1)
  (_, state, _), _ = toy_steps(images, model=Revived(), learning_rate=0.1)
  kernel, averaged, before, expected = (
    np.array(x['Dense_0']['kernel'])
    for x in (state.params, state.ema_params, plain.params, plain.ema_params)
  )
  np.testing.assert_array_equal(kernel[1], 7)
  expected[1] += 7 - before[1]
  np.testing.assert_allclose(averaged, expected, rtol=1e-6)
  assert np.all(averaged != kernel)


def test_golden_losses(tiny_steps):
  losses = [float(m['loss']) for m in tiny_steps.metrics]
  golden = [0.951417, 0.993792, 0.888732]
  np.testing.assert_allclose(
    losses,
    golden,
    rtol=1e-3,
    err_msg='The numbers of training have changed: of the initial weights, '
    'the dictionary taken from the first batch, the forward pass, the loss or '
    'the optimizer. Runs that stopped before this change go on differently. '
    'If that is meant, write the new losses here and say why in the commit.',
  )


class Painter(nn.Module):
  """Stands for a decoder: it says which layer is its last."""

  perceptual_terms = ()

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3, name='brush')(nn.tanh(nn.Dense(4)(x)))

  def last_layer(self, params):
    return params['brush']['kernel']


class Painted(Toy):
  decoder: nn.Module = Painter()

  def __call__(self, images, train=False):
    x = self.decoder(images)
    return Output(x, x, Latent(x, None, {}, {}))


class Critic(nn.Module):
  @nn.compact
  def __call__(self, images):
    return nn.Dense(1)(nn.tanh(nn.Dense(4)(images)))[..., 0]


@pytest.mark.parametrize('adaptive', [False, True])
def test_the_adversarial_gradient_is_weighed(adaptive):
  """One step of plain descent, against gradients that are taken apart."""
  settings = DiscriminatorSettings(weight=0.3, adaptive=adaptive)
  adversary = make_adversary(settings)._replace(module=Critic())
  images = tiny.images(2)
  x = to_float(jnp.asarray(images))
  model, optimizer = Painted(), optax.sgd(1.0)
  params = model.init(jax.random.key(0), x)['params']
  disc_state = adversarial.start(adversary, x, jax.random.key(1))
  state = TrainState(
    step=jnp.int32(0),
    params=params,
    codebook={},
    opt_state=optimizer.init(params),
    ema_params=params,
    key=jax.random.key(1),
    adversary=disc_state,
  )
  objective = Objective(model, LossSettings())
  step = make_train_step(objective, optimizer, 0.9, adversary)
  after, metrics = jax.jit(step)(state, images)

  def paint(params):
    return model.apply({'params': params}, x).images

  def pixel(params):
    return jnp.mean((x - paint(params)) ** 2)

  def deceive(params):
    logits = Critic().apply({'params': disc_state.params}, paint(params))
    return -jnp.mean(logits)

  of_pixels, of_critic = jax.grad(pixel)(params), jax.grad(deceive)(params)
  weight = 0.3
  if adaptive:
    sizes = [
      np.linalg.norm(x['decoder']['brush']['kernel'])
      for x in (of_pixels, of_critic)
    ]
    weight *= sizes[0] / (sizes[1] + 1e-4)
  np.testing.assert_allclose(metrics['adversarial_weight'], weight, rtol=1e-4)
  expected = jax.tree.map(
    lambda p, a, b: p - (a + weight * b), params, of_pixels, of_critic
  )
  assert_close(after.params, expected, rtol=1e-4, atol=1e-6)
