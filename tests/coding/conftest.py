"""For tests that hold results to the last bit, as they are compiled in use."""

import jax
import pytest


@pytest.fixture
def full_optimization():
  jax.clear_caches()
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)
  jax.clear_caches()
