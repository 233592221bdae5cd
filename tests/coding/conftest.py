"""Coding is tested as it is compiled in use."""

import jax
import pytest


@pytest.fixture(scope='module', autouse=True)
def full_optimization():
  jax.clear_caches()
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)
  jax.clear_caches()
