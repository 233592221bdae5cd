import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lasers_jax import codec
from lasers_jax.bottlenecks import Entropy, Priced
from lasers_jax.coding.priced import geometric_bits
from tests.bottlenecks.rows import run, started

B, SIDE, D, EXTRAS = 16, 8, 8, 4
WIDTHS = np.geomspace(0.05, 3, D)


@pytest.fixture(scope='module')
def z():
  """Channels of unlike widths about a mean, each site of a size of its own."""
  rng = np.random.default_rng(0)
  sizes = rng.gamma(1, size=(B, SIDE, SIDE, 1))
  rows = WIDTHS * sizes * rng.laplace(size=(B, SIDE, SIDE, D))
  return jnp.asarray(rows + np.arange(D), jnp.float32)


@functools.cache
def variables_of(module, seed=0):
  rng = np.random.default_rng(seed)
  rows = WIDTHS * rng.gamma(1, size=(4000, 1)) * rng.laplace(size=(4000, D))
  rows = rows.reshape(1, 50, 80, D) + np.arange(D)
  return started(module, jnp.asarray(rows, jnp.float32))


def coded(z, **fields):
  """With integers that no limit clips, and laws that are not their own."""
  module = Priced(D=D, limit=3000, **fields)
  return run(module, variables_of(Priced(D=D, limit=3000)), z, train=False)


@functools.partial(jax.jit, static_argnums=0)
def learn(module, variables, z):
  """The forward pass in training, and what it writes."""
  rngs = {'bottleneck': jax.random.key(3)}
  return module.apply(variables, z, train=True, mutable=['codebook'], rngs=rngs)


def bits_of(latent) -> float:
  return float(latent.stats['bits'])


def error_of(latent, z) -> float:
  return float(np.mean((np.asarray(latent.quantized) - z) ** 2))


def test_for_nothing_integers_are_the_nearest(z):
  module = Priced(D=D, step=0.5, price=0.0)
  variables = variables_of(module)
  latent = run(module, variables, z, train=False)
  mean = np.asarray(variables['codebook']['mean'])
  expected = np.round((np.asarray(z) - mean) / np.float32(0.5))
  np.testing.assert_array_equal(latent.codes, np.clip(expected, -127, 127))
  found = mean + 0.5 * np.float32(expected)
  np.testing.assert_allclose(latent.quantized, found, rtol=1e-6)


def test_each_channel_has_the_integer_of_the_lowest_cost(z):
  module = Priced(D=D, step=0.3, price=0.5, limit=9)
  variables = variables_of(module)
  latent = run(module, variables, z, train=False)
  means = module.bind(variables)._means(jnp.full((1, 1), 0.3))
  zero, unit = (np.asarray(x)[0] for x in geometric_bits(means))
  k = np.arange(-9, 10)[:, None, None, None, None]
  mean = np.asarray(variables['codebook']['mean'])
  cost = (np.asarray(z) - mean - 0.3 * k) ** 2
  cost += 0.5 * 0.3**2 * (zero + unit * np.abs(k))
  np.testing.assert_array_equal(latent.codes, cost.argmin(axis=0) - 9)
  bits = (zero + unit * np.abs(latent.codes)).sum(axis=-1).mean()
  np.testing.assert_allclose(latent.stats['bits'], bits, rtol=1e-5)
  atoms = (np.asarray(latent.codes) != 0).sum(axis=-1).mean()
  np.testing.assert_allclose(latent.stats['atoms'], atoms, rtol=1e-6)


@pytest.mark.parametrize(
  'field, values',
  [
    ('price', (0.0, 0.1, 0.3, 1.0)),
    ('step', (0.1, 0.2, 0.5, 1.5)),
  ],
)
def test_more_of_it_costs_fewer_bits_and_more_error(z, field, values):
  found = [coded(z, **{field: x}) for x in values]
  assert (np.diff([bits_of(x) for x in found]) < 0).all()
  assert (np.diff([error_of(x, z) for x in found]) > 0).all()


def test_a_price_is_better_than_a_wider_step(z):
  """At equal bits, by the entropy of each channel, it has less error."""

  def entropy(latent):
    total = 0
    for column in np.asarray(latent.codes).reshape(-1, D).T:
      _, counts = np.unique(column, return_counts=True)
      p = counts / counts.sum()
      total -= np.sum(p * np.log2(p))
    return total

  steps = np.geomspace(0.3, 1.2, 9)
  nearest = [coded(z, step=float(s), price=0.0) for s in steps]
  priced = coded(z, step=0.4)
  rates = [entropy(x) for x in nearest][::-1]
  errors = np.log([error_of(x, z) for x in nearest])[::-1]
  same = np.interp(entropy(priced), rates, errors)
  assert rates[0] < entropy(priced) < rates[-1]
  assert np.log(error_of(priced, z)) < same - 0.04  # 0.17 dB


def test_a_flat_site_takes_no_atom():
  variables = variables_of(Priced(D=D, limit=3000))
  mean = np.asarray(variables['codebook']['mean'])
  flat = np.broadcast_to(mean + 0.02, (1, 2, 2, D))
  assert not coded(jnp.asarray(flat), step=0.1).codes.any()


@pytest.mark.parametrize('step', [0.03, 0.2, 0.9])
def test_laws_have_the_means_of_the_codes_at_every_step(z, step):
  """Though they are known by octaves."""
  module = Priced(D=D, step=step)
  variables = started(module, z)
  latent = run(module, variables, z, train=False)
  used = np.abs(latent.codes).mean(axis=(0, 1, 2))
  law = np.asarray(module.bind(variables)._means(jnp.full((1, 1), step)))[0]
  often = used > 0.05
  assert often.sum() > 2
  np.testing.assert_allclose(law[often], used[often], rtol=0.12)


def test_the_start_knows_the_mean(z):
  variables = started(Priced(D=D), z)
  rows = np.asarray(z, np.float64).reshape(-1, D)
  mean = variables['codebook']['mean']
  np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-5)


def test_training_moves_the_mean_and_the_laws_in_use(z):
  module = Priced(D=D, step=0.25, decay=0.9)  # an octave
  variables = variables_of(module)
  latent, updates = learn(module, variables, z)
  codebook, before = updates['codebook'], variables['codebook']
  rows = np.asarray(z, np.float64).reshape(-1, D)
  np.testing.assert_allclose(
    codebook['mean'],
    0.9 * before['mean'] + 0.1 * rows.mean(axis=0),
    atol=1e-5,
  )
  used = 0.25 * np.abs(latent.codes).mean(axis=(0, 1, 2))
  moved = np.asarray(codebook['sizes'] - before['sizes'])
  expected = 0.1 * (used - before['sizes'][6])
  np.testing.assert_allclose(moved[6], expected, atol=1e-6)
  assert not np.delete(moved, 6, axis=0).any()


def test_a_step_for_each_image(z):
  module = Priced(D=D, step=0.1, max_step_scale=6.0, price=0.0, limit=3000)
  variables = variables_of(Priced(D=D))
  latent, _ = learn(module, variables, z)
  error = np.abs(np.asarray(latent.quantized - z)).reshape(B, -1)
  steps = 2 * error.max(axis=1)
  assert 0.09 < steps.min() < 0.2
  assert 0.3 < steps.max() < 0.601
  plain = run(module, variables, z, train=False)
  expected = run(module.clone(max_step_scale=1.0), variables, z, train=False)
  np.testing.assert_array_equal(plain.codes, expected.codes)


@pytest.mark.parametrize('extras', [0, EXTRAS])
def test_losses_have_the_gradient_of_error_plus_price(z, extras):
  """By differences of the minimum of |z - q|² + price · step² · bits.

  At a low price, so that extras are taken.
  """
  module = Priced(D=D, step=0.4, price=0.02, extras=extras)
  variables = variables_of(module)
  params = variables.get('params', {})

  def cost(params, z):
    latent = run(module, {**variables, 'params': params}, z, train=False)
    error = np.sum((np.float64(latent.quantized) - z) ** 2)
    return error + 0.02 * 0.4**2 * bits_of(latent) * B * SIDE**2

  def losses(params, z):
    latent = module.apply({**variables, 'params': params}, z, train=True)
    return sum(latent.losses.values()) * z.size

  found = jax.jit(jax.grad(losses, (0, 1)))(params, z)
  for at, gradient in enumerate(found):
    norm = optax.tree.norm(gradient)
    if not norm:
      assert not gradient  # there are no extras
      continue
    # Along the gradient, where differences are large against rounding.
    way = jax.tree.map(lambda g, norm=norm: 2e-3 * g / norm, gradient)
    ends = []
    for sign in (-1, 1):
      moved = [params, z]
      moved[at] = jax.tree.map(lambda x, w, s=sign: x + s * w, moved[at], way)
      ends.append(cost(*moved))
    np.testing.assert_allclose((ends[1] - ends[0]) / 4e-3, norm, rtol=0.02)


def test_extras_that_serve_lower_the_cost():
  """Where signals are multiples of a few directions."""
  rng = np.random.default_rng(2)
  ways = rng.standard_normal((3, D))
  ways /= np.linalg.norm(ways, axis=1, keepdims=True)
  rows = (
    rng.laplace(scale=2, size=(B * SIDE**2, 1))
    * ways[rng.integers(3, size=B * SIDE**2)]
  )
  z = jnp.asarray(rows.reshape(B, SIDE, SIDE, D), jnp.float32)
  costs = []
  for extras in (0, 3):
    module = Priced(D=D, step=0.5, extras=extras, decay=0.5)
    variables = started(module, z)
    if extras:
      book = variables['codebook']
      usual = jnp.mean(book['sizes'])  # not rare
      variables = {
        'params': {'dictionary': jnp.asarray(ways.T, jnp.float32)},
        'codebook': {**book, 'sizes': jnp.full_like(book['sizes'], usual)},
      }
    for _ in range(12):  # until the laws have followed
      latent, updates = learn(module, variables, z)
      variables = {**variables, **updates}
    error = D * error_of(latent, z)
    costs.append(error + 0.15 * 0.5**2 * bits_of(latent))
  assert costs[1] < 0.7 * costs[0]


@pytest.mark.parametrize('kind', [Priced, Entropy])
def test_integers_are_chosen_by_the_bits_of_a_file(z, kind):
  module = kind(D=D, step=0.4, price=0.3, limit=200)
  variables = variables_of(module)
  call = functools.partial(run, module, variables, z)
  values = np.asarray(call(method='choices'))
  bits = np.random.default_rng(0).uniform(0, 5, values.shape).astype('f4')
  codes = np.asarray(call(values, bits, method='choose'))
  mean = variables['codebook'].get('mean', jnp.zeros(D))
  steps = (np.asarray(z, np.float64) - np.asarray(mean)) / 0.4
  assert (np.abs(np.sort(values[:2], axis=0) - steps) < 1.001).all()
  assert not values[2].any()
  cost = (steps - values) ** 2 + 0.3 * bits
  error = (steps - codes) ** 2
  chosen = np.where(codes == values, bits, np.inf).min(axis=0)
  np.testing.assert_allclose(
    error + 0.3 * chosen, cost.min(axis=0), rtol=1e-3, atol=1e-3
  )
  assert codes.dtype == np.int32


def test_nothing_is_chosen_for_nothing_nor_beside_extras():
  assert Priced(D=D).chooses
  assert Entropy(D=D, price=0.1).chooses
  for module in Priced(D=D, price=0.0), Priced(D=D, extras=2), Entropy(D=D):
    assert not module.chooses


def test_files_have_the_bits_of_the_laws():
  """Within 0.3 %, where codes are as the laws say, and headers aside."""
  rng = np.random.default_rng(3)
  means = np.geomspace(0.1, 4, D)
  theta = means / (1 + np.sqrt(1 + means**2))
  shape = 40, 96, 96, D
  # The difference of two geometric numbers has the law.
  q = rng.geometric(1 - theta, shape) - rng.geometric(1 - theta, shape)
  module = Priced(D=D)
  maps = [(x.astype('i4'), shape[1:3]) for x in q]
  tables = codec.fit_tables(module, maps[1:])
  writer = codec.Codec(module, 1, 1, tables, bytes(4))
  data = writer.write(*maps[0][:1], *shape[1:3])
  zero, unit = geometric_bits(jnp.asarray(means, jnp.float32))
  bits = np.sum(np.asarray(zero) + np.asarray(unit) * np.abs(q[0]))
  assert abs(8 * (len(data) - 15) / bits - 1) < 0.003
  codes, *_ = writer.read(data)
  np.testing.assert_array_equal(codes, q[0])


def test_extremes_are_finite(z):
  module = Priced(D=D, extras=EXTRAS)
  variables = variables_of(module)
  for size in (0, 1e3, 1e15):
    found = learn(module, variables, jnp.full_like(z, size))
    for x in jax.tree.leaves(found):
      assert np.isfinite(x).all()
    assert np.abs(found[0].codes).max() <= 127
