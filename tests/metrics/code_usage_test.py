import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.metrics import code_usage


@pytest.mark.parametrize('size', [1, 2, 512])
def test_uniform_histogram(size):
  counts = np.full(size, 7)
  assert code_usage.usage(counts) == 1
  assert code_usage.perplexity(counts) == pytest.approx(size, rel=1e-12)
  assert code_usage.entropy_bits(counts) == pytest.approx(np.log2(size))


def test_one_code_in_use():
  counts = np.array([0, 0, 9, 0])
  assert code_usage.usage(counts) == 0.25
  assert code_usage.perplexity(counts) == 1
  assert code_usage.entropy_bits(counts) == 0


def test_nothing_counted():
  counts = np.zeros(4)
  assert code_usage.usage(counts) == 0
  assert code_usage.perplexity(counts) == 0
  assert code_usage.entropy_bits(counts) == 0


def test_entropy_of_a_known_histogram():
  counts = [4, 2, 0, 1, 1]
  assert code_usage.usage(counts) == pytest.approx(0.8)
  assert code_usage.entropy_bits(counts) == pytest.approx(1.75, rel=1e-12)
  assert code_usage.perplexity(counts) == pytest.approx(2**1.75, rel=1e-12)


def test_histograms_have_no_order_and_no_scale():
  counts = np.random.default_rng(4).integers(0, 50, 64)
  expected = code_usage.perplexity(counts)
  assert code_usage.perplexity(counts[::-1]) == pytest.approx(expected)
  assert code_usage.perplexity(counts * 1000) == pytest.approx(expected)
  # Sums beyond int32 do not wrap.
  big = jnp.full(8, 2**30, jnp.int32)
  assert code_usage.perplexity(big) == pytest.approx(8)


@pytest.mark.parametrize(
  'measure', [code_usage.usage, code_usage.perplexity, code_usage.entropy_bits]
)
@pytest.mark.parametrize('counts', [[], [[1, 2]], [1, -1], [1, np.nan]])
def test_what_is_no_histogram_is_refused(measure, counts):
  with pytest.raises(ValueError, match='counts must be'):
    measure(counts)
