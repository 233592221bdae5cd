import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.ibq import IBQ
from tests.bottlenecks.rows import standard_normal

B, SIDE, D, K = 8, 4, 8, 16


@pytest.fixture(scope='module')
def z():
  return standard_normal((B, SIDE, SIDE, D), 0)


@pytest.fixture(scope='module')
def codes():
  return standard_normal((K, D), 1)


@functools.partial(jax.jit, static_argnames=('train', 'method'))
def apply(codes, *args, **options):
  module = IBQ(D=D, K=K, entropy_temperature=0.5)
  return module.apply({'params': {'codes': codes}}, *args, **options)


def dense_losses(codes, z):
  """As in the paper: straight-through one-hot vectors of all codes."""
  z = z.reshape(-1, D)
  logits = z @ codes.T
  p = jax.nn.softmax(logits)
  hard = jax.nn.one_hot(jnp.argmax(logits, axis=1), K)
  quantized = (hard - jax.lax.stop_gradient(p) + p) @ codes
  plain, hold = hard @ codes, jax.lax.stop_gradient
  sharp = jax.nn.softmax(logits / 0.5)
  mean = jnp.mean(sharp, axis=0)
  each = -jnp.mean(jnp.sum(sharp * jnp.log(sharp), axis=1))
  losses = {
    'double': jnp.mean((quantized - z) ** 2),
    'codebook': jnp.mean((plain - hold(z)) ** 2),
    'commitment': jnp.mean((hold(plain) - z) ** 2),
    'entropy': each + jnp.sum(mean * jnp.log(mean)),
  }
  return losses, quantized


@pytest.fixture(scope='module')
def pulls(codes, z):
  """Losses and quantized, ours and dense, with what pulls gradients back."""

  def ours(codes, z):
    latent = apply(codes, z, train=True)
    return latent.losses, latent.quantized.reshape(-1, D)

  return [jax.vjp(jax.jit(f), codes, z) for f in (ours, dense_losses)]


def test_losses_are_those_of_the_paper(pulls):
  (ours, _), (dense, _) = pulls
  assert set(ours[0]) == set(dense[0])
  for name, loss in dense[0].items():
    np.testing.assert_allclose(ours[0][name], loss, rtol=1e-5)
  np.testing.assert_allclose(ours[1], dense[1], atol=1e-5)


@pytest.mark.parametrize(
  'name, reaches_codes, reaches_z',
  [
    ('double', True, True),
    ('codebook', True, False),
    ('commitment', False, True),
    ('entropy', True, True),
    (None, True, True),  # the decoder's own gradient
  ],
)
def test_gradients_are_those_of_the_paper(
  pulls, name, reaches_codes, reaches_z
):
  ours, dense = (
    pull(
      (
        {other: jnp.float32(other == name) for other in values[0]},
        standard_normal(values[1].shape, 3) * (name is None),
      )
    )
    for values, pull in pulls
  )
  for one, other, reaches in zip(
    ours, dense, (reaches_codes, reaches_z), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.any(one) == reaches


def test_every_code_has_a_gradient(pulls):
  (values, pull), _ = pulls
  nothing = jax.tree.map(jnp.zeros_like, values[0])
  to_codes, _ = pull((nothing, standard_normal(values[1].shape, 3)))
  assert np.all(np.any(to_codes != 0, axis=1))


def test_the_largest_product_wins_and_not_the_nearest(z, codes):
  long = codes.at[3].mul(20.0)
  found = apply(long, z, method='encode').ravel()
  expected = np.argmax(np.asarray(z).reshape(-1, D) @ np.asarray(long).T, 1)
  np.testing.assert_array_equal(found, expected)
  assert np.mean(found == 3) > 0.3


def test_training_decodes_what_evaluation_would(z, codes):
  training = apply(codes, z, train=True)
  evaluation = apply(codes, z, train=False)
  np.testing.assert_array_equal(training.codes, evaluation.codes)
  np.testing.assert_array_equal(training.quantized, evaluation.quantized)
  np.testing.assert_array_equal(
    evaluation.quantized, apply(codes, evaluation.codes, method='decode')
  )
  for name, loss in evaluation.losses.items():
    np.testing.assert_allclose(training.losses[name], loss, rtol=1e-5)


def test_codes_start_as_in_the_paper(z):
  module = IBQ(D=D, K=K)
  start = module.init(jax.random.key(0), z, train=False)
  assert jax.tree.map(jnp.shape, start) == {'params': {'codes': (K, D)}}
  np.testing.assert_allclose(np.std(start['params']['codes']), 1, rtol=0.2)
  _, fitted = module.apply(start, z, method='initialize', mutable=['params'])
  np.testing.assert_array_equal(
    fitted['params']['codes'], start['params']['codes']
  )


def test_nothing_is_nan(codes):
  module = IBQ(D=D, K=K)  # of the sharp softmax

  @jax.jit
  def total(codes, z):
    latent = module.apply({'params': {'codes': codes}}, z, train=True)
    return sum(latent.losses.values()) + jnp.sum(latent.quantized)

  for scale in (0.0, 1e3):
    z = scale * standard_normal((2, 2, D), 4)
    found = jax.value_and_grad(total, (0, 1))(codes, z)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_masked_sites_count_for_nothing(z, codes):
  mask = jnp.arange(SIDE)[None, :, None] < jnp.full((B, 1, SIDE), 3)

  other = jnp.where(mask[..., None], z, 100.0)
  found = (
    apply(codes, z, train=True, mask=mask),
    apply(codes, other, train=True, mask=mask),
    apply(codes, z[:, :3], train=True),
  )
  found = [jax.tree.leaves((x.losses, x.stats)) for x in found]
  for x, y, alone in zip(*found, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5)
    np.testing.assert_allclose(x, alone, rtol=1e-5)
