import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding import distances, search

GIB = 2**28  # numbers


def blocks(map_in_blocks, n, k):
  """The number of sites that a function of N sites is given at once."""
  seen = []

  def function(block):
    seen.append(block.shape[0])
    return block

  sites = jax.ShapeDtypeStruct((n,), jnp.float32)
  shape = jax.eval_shape(lambda x: map_in_blocks(function, x, k), sites)
  assert shape.shape == (n,)
  return seen[0]


@pytest.mark.parametrize('k, block', [(1, 2048), (512, 1024), (2**19, 64)])
def test_a_block_of_a_cpu_does_not_depend_on_the_number_of_sites(k, block):
  for n in (0, 1, 100, 10**6):
    assert blocks(search.in_small_blocks, n, k) == block


def test_an_accelerator_takes_all_sites_at_once_up_to_a_gib():
  for n, k in ((0, 512), (1, GIB), (1024, 262_144), (2**19, 512)):
    assert blocks(search.in_large_blocks, n, k) == n


@pytest.mark.parametrize(
  'n, k', [(1025, 262_144), (2**16, 2**18), (57_344, 16_384), (3, 2 * GIB)]
)
def test_beyond_a_gib_blocks_are_even_and_have_no_more(n, k):
  block = blocks(search.in_large_blocks, n, k)
  assert 1 <= block < n
  assert block == 1 or block * k <= GIB + k
  count = -(-n // block)
  assert count * block - n < count


@pytest.mark.parametrize('alone', [True, False])
@pytest.mark.parametrize('block', [1, 4, 10, 32])
def test_blocks_give_what_all_at_once_gives(block, alone, monkeypatch):
  monkeypatch.setattr(search, '_alone', lambda: alone)
  rng = np.random.default_rng(0)
  sites = {
    'x': jnp.asarray(rng.integers(0, 9, (10, 3)), jnp.float32),
    'i': jnp.arange(10, dtype=jnp.int32),
  }

  def function(part):
    return jnp.sum(part['x'], axis=1), part['x'] * part['i'][:, None]

  found = search.map_blocks(function, sites, block)
  jax.tree.map(np.testing.assert_array_equal, found, function(sites))


def test_no_sites_are_no_trouble():
  found = search.in_blocks(lambda x: x + 1, jnp.zeros((0, 3)), 3)
  assert found.shape == (0, 3)


def test_linear_is_a_product_and_has_its_gradient():
  generator = np.random.default_rng(0)
  x, kernel, c = (
    generator.standard_normal(shape) for shape in ((5, 6), (6, 3), (5, 3))
  )
  f4 = [jnp.asarray(a, 'f4') for a in (x, kernel, c)]
  np.testing.assert_allclose(
    search.linear(*f4[:2]), x @ kernel, rtol=1e-5, atol=1e-6
  )

  def total(x, kernel):
    return jnp.sum(search.linear(x, kernel) * f4[2])

  to_x, to_kernel = jax.grad(total, argnums=(0, 1))(*f4[:2])
  np.testing.assert_allclose(to_x, c @ kernel.T, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(to_kernel, x.T @ c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('alone', [True, False])
def test_linear_maps_a_row_alike_whatever_comes_along(
  alone, monkeypatch, as_in_use
):
  monkeypatch.setattr(search, '_alone', lambda: alone)
  linear = as_in_use(search.linear.fun.__wrapped__)
  generator = np.random.default_rng(1)
  x = jnp.asarray(generator.standard_normal((2500, 13)), 'f4')
  kernel = jnp.asarray(generator.standard_normal((13, 5)), 'f4')
  together = linear(x, kernel)
  for rows in (slice(0, 1), slice(100, 131), slice(None, None, -1)):
    some = linear(x[rows], kernel)
    np.testing.assert_array_equal(some, together[rows])


@pytest.mark.parametrize('entries', [1, 50, 10 * 23, 10**6])
def test_blocks_of_columns_give_the_largest_of_all(entries, monkeypatch):
  monkeypatch.setattr(search, '_ENTRIES_ON_ACCELERATOR', entries)
  rng = np.random.default_rng(1)
  scores = rng.integers(-3, 3, (10, 23)).astype(np.float32)  # of many ties
  scores[3], scores[4, 20] = -np.inf, np.inf
  columns = {'scores': jnp.asarray(scores.T)}
  seen = []

  def function(part):
    seen.append(part['scores'].shape[0])
    return part['scores'].T

  find = lambda x: search.largest_of_columns(function, x, 10)  # noqa: E731
  found = np.asarray(jax.jit(find)(columns))
  expected = np.argmax(scores, axis=1)
  expected[3] = found[3]  # of a row where none is larger, any
  np.testing.assert_array_equal(found, expected)
  assert 0 <= found[3] < 23
  assert max(seen) == min(23, -(-23 // -(-230 // entries)))
  # An index has no gradient, in a loop neither.
  slope = jax.jit(jax.grad(lambda x: jnp.sum(find(x) * 1.0)))
  assert not np.any(slope(columns)['scores'])


def test_both_ways_to_find_the_best_code_agree(monkeypatch):
  """That of a CPU, by sites, and that of an accelerator, by codes."""
  rng = np.random.default_rng(2)
  signals, codes = (rng.standard_normal((n, 8)).astype('f4') for n in (64, 40))
  codes[5], codes[7] = np.nan, codes[6]
  ways = []
  monkeypatch.setattr(search, '_ENTRIES_ON_ACCELERATOR', 300)
  monkeypatch.setattr(
    distances.lax,
    'platform_dependent',
    lambda *args, cpu, default: (ways.append(default), cpu(*args))[1],
  )
  for by_distance in True, False:
    ways.clear()
    found = distances.best_code(signals, codes, by_distance)
    other = ways[0](jnp.asarray(signals))
    assert np.any(np.asarray(found) > 20)
    np.testing.assert_array_equal(found, distances.centre(codes).index[other])
