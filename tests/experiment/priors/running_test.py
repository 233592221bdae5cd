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
  initial = jax.jit(prior_step._initial, static_argnums=0)
  return model, initial(model, views[:1], 0), views


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
  for count in N, 3:
    some = {name: x[:count] for name, x in rows.items()}
    found = measure(some, batch=4, devices=2)
    np.testing.assert_allclose(found, expected[:count], rtol=1e-5, atol=1e-6)
  assert np.any(np.abs(measure(rows, N, seed=1) - expected) > 1e-2)
