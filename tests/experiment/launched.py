"""Runs a script as a launcher does, and says which GPUs JAX was left.

python tests/experiment/launched.py train.py FLAGS
"""

import atexit
import os
import pathlib
import runpy
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path[0] = str(ROOT)

import jax  # noqa: E402, F401
from jax._src import xla_bridge  # noqa: E402

from tests import lowering  # noqa: E402, F401

if 'GCE_METADATA_IP' in os.environ:
  # JAX sets it where it sees no chip: here, on what plays a TPU VM.
  del os.environ['TPU_SKIP_MDS_QUERY']


def say() -> None:
  left = xla_bridge.CUDA_VISIBLE_DEVICES.value
  print('GPUs left to JAX:', left, file=sys.stderr)


atexit.register(say)
del sys.argv[0]
runpy.run_path(str(ROOT / sys.argv[0]), run_name='__main__')
