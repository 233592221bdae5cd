import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.spatial.distance import cdist

from lasers_jax.bottlenecks import VQ, Residual

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
  np.testing.assert_allclose(
    after['codes'], sums / use[:, None], rtol=1e-5, atol=1e-5
  )


def test_ema_converges_to_the_mean_of_a_cluster():
  signal = jnp.linspace(-1, 1, D)
  z = jnp.broadcast_to(signal[None, None, None], (1, 2, 2, D))
  module, variables = VQ(D=D, K=K, decay=0.5), variables_of('codebook')
  for _ in range(15):
    _, updates = train(module, variables, z)
    variables = {**variables, **updates}
  np.testing.assert_allclose(
    module.apply(variables, z, train=False).quantized, z, atol=1e-3
  )


STEPS, T = 400, np.linspace(0, 1, 400)[:, None]
HALF = np.arange(D) < D // 2
# (scales, shifts) of the latents in each step, [STEPS, D] or alike.
MOTIONS = {
  'none': (1, 0),
  'shrink': (1e-3**T, 0),
  'grow': (1e3**T, 0),
  'shrink in some dimensions': (np.where(HALF, 1e-3**T, 1), 0),
  'shrink at once': (1e-3 ** np.clip(6 * T - 5, 0, 1), 0),
  'drift': (1, 30 * T),
  'shrink towards another point': (1e-3**T, 5 * 1e-3**T),
}


@functools.cache
def follower(**fields):
  """A function of the name of a motion that trains a VQ and evaluates it.

  It returns the error, as a share of the variance, and the usage.
  """
  if fields.pop('residual', False):
    module = Residual(D=D, depth=2, inner=VQ(D=D, K=K, **fields))
  else:
    module = VQ(D=D, K=K, **fields)

  def latents(key, scale, shift):
    z = jax.random.normal(key, (1, 16, 16, D))
    return z * scale[None, None, None] + shift[None, None, None]

  @jax.jit
  def run(scales, shifts):
    def step(codebook, moment):
      _, updates = train(module, {'codebook': codebook}, latents(*moment))
      return updates['codebook'], None

    start = latents(jax.random.key(5), scales[0], shifts[0])
    codebook = started(module, start)['codebook']
    keys = jax.random.split(jax.random.key(6), STEPS)
    codebook, _ = lax.scan(step, codebook, (keys, scales, shifts))
    z = latents(jax.random.key(7), scales[-1], shifts[-1])
    latent = module.apply({'codebook': codebook}, z, train=False)
    error = jnp.mean((z - latent.quantized) ** 2)
    return error / jnp.mean(jnp.var(z, axis=(0, 1, 2))), latent.stats['usage']

  @functools.cache
  def error_of(motion):
    shape = (STEPS, D)
    scales, shifts = (
      jnp.broadcast_to(jnp.float32(x), shape) for x in MOTIONS[motion]
    )
    return run(scales, shifts)

  return error_of


@pytest.mark.parametrize('motion', [x for x in MOTIONS if x != 'none'])
@pytest.mark.parametrize(
  'fields',
  [{}, {'assignment': 'sinkhorn'}, {'residual': True}],
  ids=['nearest', 'sinkhorn', 'residual'],
)
def test_codes_hold_latents_that_move_by_far(fields, motion):
  """There is no revival here: the codes themselves keep up."""
  error_of = follower(**fields)
  still, _ = error_of('none')
  error, usage = error_of(motion)
  assert error < 1.1 * still
  assert usage == 1


def test_a_code_that_nothing_chooses_stays_to_the_last_bit(z):
  module, variables = fresh(z)
  step = jax.jit(functools.partial(train, module))
  codes = variables['codebook']['codes']
  # All latents are one, then those of two images.
  for some in (z[:1, :1, :1], z[:2, None]):
    some = jnp.broadcast_to(some.reshape(-1, 1, D), (2 * SIDE**2, 2, D))
    for _ in range(3):
      latent, updates = step(variables, some)
      variables = {**variables, **updates}
      rest = np.setdiff1d(np.arange(K), latent.codes)
      assert len(rest)
      after = updates['codebook']['codes']
      np.testing.assert_array_equal(after[rest], codes[rest])
      codes = after


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
  np.testing.assert_allclose(latent.stats['relative_error'], error, rtol=1e-5)


def fresh(z, **fields):
  """A module started from z, and its variables."""
  module = VQ(D=D, K=K, **fields)
  return module, started(module, z)


def started(module, z):
  variables = module.init(jax.random.key(1), z, train=False)
  _, fitted = module.apply(
    variables,
    z,
    method='initialize',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(2)},
  )
  return {**variables, **fitted}


def test_alternated_learning_descends_before_it_decodes(z):
  module = VQ(D=D, K=K, learning='alternated', rate=7.0)
  start = variables_of('codebook')
  del start['codebook']['sums']
  latent, updates = train(module, start, z)
  signals, chosen = z.reshape(-1, D), np.asarray(latent.codes).ravel()
  codes = start['codebook']['codes']

  def loss(codes):
    return jnp.mean((codes[chosen] - signals) ** 2)

  moved = codes - 7.0 * jax.grad(loss)(codes)
  np.testing.assert_allclose(updates['codebook']['codes'], moved, atol=1e-6)
  np.testing.assert_array_equal(
    latent.quantized.reshape(-1, D), updates['codebook']['codes'][chosen]
  )
  # The indices are those of the codes before.
  np.testing.assert_array_equal(chosen, cdist(signals, codes).argmin(axis=1))


def test_cosine_compares_directions(z):
  module, variables = fresh(z, distance='cosine')
  latent = module.apply(variables, z, train=False)
  signals = np.asarray(z).reshape(-1, D)
  codes = np.asarray(variables['codebook']['codes'])
  similar = 1 - cdist(signals, codes, 'cosine')
  np.testing.assert_array_equal(latent.codes.ravel(), similar.argmax(axis=1))
  lengths = np.linalg.norm(latent.quantized, axis=-1)
  np.testing.assert_allclose(lengths, 1, rtol=1e-5)
  longer = module.apply(variables, 9 * z, train=False)
  np.testing.assert_array_equal(longer.codes, latent.codes)


def test_kmeans_starts_nearer_than_data_does(z):
  errors = {}
  for start in ('data', 'kmeans'):
    module, variables = fresh(z, start=start)
    latent = module.apply(variables, z, train=False)
    errors[start] = float(latent.stats['relative_error'])
  assert errors['kmeans'] < 0.9 * errors['data']
  # The sums are means times counts, so that the next step undoes nothing.
  book = variables['codebook']
  np.testing.assert_allclose(
    book['sums'], book['codes'] * book['use'][:, None], rtol=1e-6
  )
  _, updates = train(module, variables, z)
  moved = updates['codebook']['codes'] - book['codes']
  assert np.abs(moved).max() < 0.05


def test_sinkhorn_uses_all_codes_where_the_nearest_are_few(z):
  # Codes that lie apart from the signals: but one, all are far from all.
  codes = variables_of('codebook')['codebook']['codes']
  start = variables_of('codebook')
  start['codebook']['codes'] = 0.01 * codes + 5 * (jnp.arange(K) > 0)[:, None]
  nearest, _ = train(VQ(D=D, K=K), start, z)
  spread, _ = train(VQ(D=D, K=K, assignment='sinkhorn'), start, z)
  assert nearest.stats['usage'] == 1 / K
  assert spread.stats['usage'] > 0.8
  still = VQ(D=D, K=K, assignment='sinkhorn').apply(start, z, train=False)
  np.testing.assert_array_equal(still.codes, nearest.codes)


def affine_variables():
  start = variables_of('params')
  start['params']['stretch'] = jnp.linspace(-0.2, 0.3, D)
  start['params']['shift'] = jnp.linspace(0.1, -0.1, D)
  return start


def test_affine_codes_share_a_scale_and_a_shift(z):
  module = VQ(D=D, K=K, learning='loss', affine=2.0)
  start = affine_variables()
  codes, stretch, shift = (
    np.asarray(start['params'][x]) for x in ('codes', 'stretch', 'shift')
  )
  found = module.apply(start, method='atoms').reshape(K, D)
  np.testing.assert_allclose(
    found, (1 + 2 * stretch) * codes + 2 * shift, rtol=1e-5
  )

  def loss(params):
    return module.apply({**start, 'params': params}, z, train=True).losses[
      'codebook'
    ]

  gradient = jax.grad(loss)(start['params'])
  assert np.all(gradient['stretch'] != 0)
  assert np.all(gradient['shift'] != 0)


def test_a_code_revived_under_an_affine_map_lands_on_a_signal(z):
  module = VQ(D=D, K=K, learning='loss', affine=2.0)
  start = affine_variables()
  start['codebook']['use'] = start['codebook']['use'].at[3].set(0)
  _, changed = module.apply(
    start,
    z,
    method='revive',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(0)},
  )
  code = module.apply({**start, **changed}, method='atoms')[3].reshape(1, D)
  assert cdist(code, np.asarray(z).reshape(-1, D)).min() < 1e-5


def test_synchronized_codes_receive_a_share_of_the_decoders_gradient(z):
  start = variables_of('params')

  def total(params, synchronized):
    module = VQ(D=D, K=K, learning='loss', synchronized=synchronized)
    latent = module.apply({**start, 'params': params}, z, train=True)
    return jnp.sum(latent.quantized[..., 0])

  assert not np.any(jax.grad(total)(start['params'], 0.0)['codes'])
  gradient = jax.grad(total)(start['params'], 0.5)['codes']
  latent = VQ(D=D, K=K, learning='loss').apply(start, z, train=False)
  counts = np.bincount(np.asarray(latent.codes).ravel(), minlength=K)
  np.testing.assert_allclose(gradient[:, 0], 0.5 * counts, rtol=1e-6)
  assert not np.any(gradient[:, 1:])


@pytest.mark.parametrize(
  'fields, message',
  [
    (
      {'learning': 'emma'},
      "learning must be one of ('ema', 'loss', 'alternated'): 'emma'",
    ),
    (
      {'gradient': 'reflection'},
      "gradient must be one of ('straight_through', 'rotation'): 'reflection'",
    ),
    ({'affine': 2.0}, "affine goes with learning='loss' only"),
    ({'synchronized': 1.0}, "synchronized goes with learning='loss' only"),
  ],
)
def test_check(fields, message):
  with pytest.raises(ValueError) as error:
    VQ(**{'D': D, 'K': K, **fields}).check()
  assert str(error.value) == message
