import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lasers_jax.bottlenecks import VQ

B, SIDE, D, K = 4, 4, 8, 16


@pytest.fixture(scope='module')
def z():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


def variables_of(home: str, **more):
  """A codebook, of which some codes have been used more than others."""
  generator = np.random.default_rng(1)
  codes = jnp.asarray(generator.standard_normal((K, D)), 'f4')
  use = jnp.asarray(generator.uniform(0.2, 2, K), 'f4')
  if home == 'params':
    return {'params': {'codes': codes}, 'codebook': {'use': use}}
  sums = codes * use[:, None]
  return {'codebook': {'codes': codes, 'use': use, 'sums': sums}}


def train(module, variables, z):
  return module.apply(variables, z, train=True, mutable=['codebook'])


def test_an_ema_step_is_that_of_the_appendix(z):
  """Van den Oord et al. 2017, appendix A.1, with counts of mean 1."""
  decay, start = 0.9, variables_of('codebook')
  latent, updates = train(VQ(D=D, K=K, decay=decay), start, z)

  signals = np.asarray(z, np.float64).reshape(-1, D)
  codes, use, sums = (
    np.asarray(start['codebook'][x], np.float64)
    for x in ('codes', 'use', 'sums')
  )
  chosen = cdist(signals, codes).argmin(axis=1)
  np.testing.assert_array_equal(latent.codes.ravel(), chosen)

  counts = np.bincount(chosen, minlength=K) * K / len(signals)
  totals = np.zeros((K, D))
  np.add.at(totals, chosen, signals * K / len(signals))
  use = decay * use + (1 - decay) * counts
  sums = decay * sums + (1 - decay) * totals
  after = updates['codebook']
  np.testing.assert_allclose(after['use'], use, rtol=1e-5)
  np.testing.assert_allclose(after['sums'], sums, rtol=1e-4, atol=1e-5)
  # The smoothing of the counts is some 1e-5.
  np.testing.assert_allclose(
    after['codes'], sums / use[:, None], rtol=1e-3, atol=1e-4
  )


def test_ema_converges_to_the_mean_of_a_cluster():
  signal = jnp.linspace(-1, 1, D)
  z = jnp.broadcast_to(signal[None, None, None], (1, 2, 2, D))
  module, variables = VQ(D=D, K=K, decay=0.5), variables_of('codebook')
  for _ in range(15):
    latent, updates = train(module, variables, z)
    variables = {**variables, **updates}
  np.testing.assert_allclose(
    module.apply(variables, z, train=False).quantized, z, atol=1e-3
  )


def test_loss_learning_leaves_the_codes_to_the_optimizer(z):
  module, start = VQ(D=D, K=K, learning='loss'), variables_of('params')
  latent, updates = train(module, start, z)
  assert set(latent.losses) == {'commitment', 'codebook'}
  assert set(updates['codebook']) == {'use'}
  error = np.mean((np.asarray(latent.quantized) - z) ** 2)
  for loss in latent.losses.values():
    np.testing.assert_allclose(loss, error, rtol=1e-5)

  def codebook_loss(params):
    variables = {**start, 'params': params}
    return module.apply(variables, z, train=True).losses['codebook']

  # Only the codes in use are pulled, each towards the mean of its signals.
  gradient = jax.grad(codebook_loss)(start['params'])['codes']
  chosen = np.asarray(latent.codes).ravel()
  codes, signals = start['params']['codes'], z.reshape(-1, D)
  for k in range(K):
    pull = 2 * np.sum(codes[None, k] - signals[chosen == k], axis=0) / z.size
    np.testing.assert_allclose(gradient[k], pull, atol=1e-5)


def test_ema_learning_has_no_codebook_loss(z):
  latent = VQ(D=D, K=K).apply(variables_of('codebook'), z, train=True)
  assert set(latent.losses) == {'commitment'}


def test_stats(z):
  latent = VQ(D=D, K=K).apply(variables_of('codebook'), z, train=False)
  counts = np.bincount(np.asarray(latent.codes).ravel(), minlength=K)
  p = counts[counts > 0] / counts.sum()
  assert latent.stats['usage'] == len(p) / K
  np.testing.assert_allclose(
    latent.stats['perplexity'], np.exp(-np.sum(p * np.log(p))), rtol=1e-5
  )
  error = np.sum((np.asarray(latent.quantized) - z) ** 2) / np.sum(z**2)
  np.testing.assert_allclose(
    latent.stats['relative_error'], error, rtol=1e-5
  )


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'learning': 'emma'}, "learning must be one of ('ema', 'loss'): 'emma'"),
    ({'K': 1}, 'K must be at least 2, got K = 1'),
  ],
)
def test_check(fields, message):
  with pytest.raises(ValueError) as error:
    VQ(**{'D': D, 'K': K, **fields}).check()
  assert str(error.value) == message
