"""What an event means for the decoder, as priors of codes are told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.priors.maps.autoregressive import Autoregressive
from lasers_jax.priors.maps.layout import Layout
from lasers_jax.training.prior_step import fit_statistics

SIZES = 5, 3
N, D = 400, 2


@pytest.fixture(scope='module')
def fitted():
  """Sums of a row of each of two tables; value 4 of plane 0 is never seen."""
  rng = np.random.default_rng(0)
  tables = [rng.normal(size=(size, D)) for size in SIZES]
  view = np.stack([rng.integers(0, n, (N, 2, 2)) for n in (4, 3)], axis=-1)
  quantized = sum(x[view[..., p]] for p, x in enumerate(tables))
  prior = Autoregressive(
    sites=(2, 2), layout=Layout((2, 2), SIZES), D=D, width=16, layers=1, heads=2
  )
  found = fit_statistics(
    prior, view.astype(np.uint16), quantized.astype(np.float32)
  )
  return view, quantized, found


def test_vectors_are_means_over_the_sites_with_an_event(fitted):
  view, quantized, found = fitted
  centred = quantized - quantized.mean(axis=(0, 1, 2))
  centred /= np.sqrt(np.mean(centred**2))
  for p, size in enumerate(SIZES):
    for value in range(size):
      here = centred[view[..., p] == value]
      mean = here.mean(axis=0) if len(here) else np.zeros(D)
      got = found[f'vectors_{p}'][value]
      np.testing.assert_allclose(got, mean, rtol=1e-5, atol=1e-6)


def test_events_that_mean_the_same_are_alike_from_the_start(fitted):
  _, _, found = fitted
  prior = Autoregressive(
    sites=(2, 2), layout=Layout((2, 2), SIZES), D=D, width=16, layers=1, heads=2
  )
  labels, events = np.zeros(1, np.int32), np.zeros((1, 2, 2, 2), np.int32)
  init = jax.jit(functools.partial(prior.init, train=False))
  variables = init(jax.random.key(0), events, labels)
  params = jax.tree.map(np.zeros_like, variables['params'])
  params['project'] = variables['params']['project']
  twins = dict(found)
  twins['vectors_0'] = found['vectors_0'].at[1].set(found['vectors_0'][2])

  @jax.jit
  def embed(value):
    one = jnp.array([value, 0], jnp.int32)
    given = {'params': params, 'codebook': twins}
    return prior.apply(given, one, method='embed')

  np.testing.assert_array_equal(embed(1), embed(2))
  assert np.abs(embed(1) - embed(3)).max() > 0
