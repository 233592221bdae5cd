"""For tests that hold results to the last bit, as they are compiled in use."""

import functools
import os

import jax
import pytest

_OPTIONS = {
  'xla_backend_optimization_level': 3,
  'xla_llvm_disable_expensive_passes': False,
}
if 'xla_cpu_use_fusion_emitters' in os.environ['XLA_FLAGS']:
  _OPTIONS['xla_cpu_use_fusion_emitters'] = True


@pytest.fixture(scope='session')
def as_in_use():
  """Compiles a function with all optimizations; other tests do without."""
  return functools.partial(jax.jit, compiler_options=_OPTIONS)
