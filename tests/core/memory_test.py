import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from lasers_jax.core.memory import keep_freed_memory

if sys.argv[1] == 'keep':
  assert keep_freed_memory()

def take():
  return np.ones(2**25, np.uint8)  # of 8,192 pages

take()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
  take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


def page_faults(word):
  command = sys.executable, '-c', SCRIPT, word
  # Huge pages, or what an environment asks of malloc, would hide the faults.
  plain = {'NUMPY_MADVISE_HUGEPAGE': '0'}
  done = subprocess.run(
    command, env=plain, capture_output=True, text=True, check=True
  )
  return int(done.stdout)


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='of the GNU C library alone'
)
def test_freed_memory_is_used_again_without_page_faults():
  assert page_faults('keep') < 1000 < page_faults('leave')
