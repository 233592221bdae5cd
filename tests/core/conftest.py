import os

import pytest


@pytest.fixture
def described(monkeypatch):
  """Lets a test describe TPUs; skips it where their compiler is missing."""
  pytest.importorskip('libtpu')
  for name in (
    'TPU_SKIP_MDS_QUERY',
    'ALLOW_MULTIPLE_LIBTPU_LOAD',
    'TPU_ACCELERATOR_TYPE',
    'TPU_WORKER_HOSTNAMES',
  ):
    # Described ones leave variables behind, which other tests must not see.
    monkeypatch.setenv(name, os.environ.get(name, ''))
    monkeypatch.delenv(name)
