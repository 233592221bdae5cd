"""What priors measure of an image, in batches of any size."""

import jax
import numpy as np
import pytest

from lasers_jax import inference
from lasers_jax.core import sharding
from lasers_jax.experiment.priors import running
from lasers_jax.priors.maps.flow import Flow
from lasers_jax.priors.maps.layout import Layout
from lasers_jax.priors.maps.masked import Masked
from lasers_jax.training import prior_step
from tests.priors.maps import small

N = 7


def bounded():
  """A prior whose bits are a bound, and rows that are all alike."""
  model, variables = small.prior(Masked, Layout((2, 2), (5,)))
  return model, variables, np.full((N, 2, 2, 1), 3)


def without_bits():
  model = Flow(sites=(2, 2), D=2, classes=3, width=16, layers=1, heads=2)
  views = np.ones((N, 2, 2, 2), np.float32)
  variables = prior_step._initial(model, views[:1], 0)
  return model, variables, views


@pytest.mark.parametrize('kind', [bounded, without_bits])
def test_an_image_has_the_same_numbers_in_any_batch(kind, monkeypatch):
  model, variables, views = kind()
  rows = {'view': views, 'label': np.arange(N) % 3}

  def measure(rows, batch, devices=1, seed=0):
    monkeypatch.setattr(inference, 'BATCH', batch)
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    return running.measure(model, variables, rows, mesh, seed)

  expected = measure(rows, N)
  assert len(expected) == N
  # Each image has random numbers of its own.
  assert len(np.unique(expected.reshape(N, -1), axis=0)) > N // 2
  for batch, devices in (2, 1), (4, 2):
    found = measure(rows, batch, devices)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  some = {name: x[:3] for name, x in rows.items()}
  np.testing.assert_allclose(measure(some, N), expected[:3], rtol=1e-5)
  assert np.any(np.abs(measure(rows, N, seed=1) - expected) > 1e-2)
