"""What holds its results to the last bit is tested as it is compiled in use."""

import jax
import pytest

OPTIMIZED = ('codebook', 'dictionary', 'learning', 'omp', 'omp_options')


@pytest.fixture(scope='module', autouse=True)
def full_optimization(request):
  name = request.module.__name__.split('.')[-1].removesuffix('_test')
  if name not in OPTIMIZED:
    yield
    return
  jax.clear_caches()
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)
  jax.clear_caches()
