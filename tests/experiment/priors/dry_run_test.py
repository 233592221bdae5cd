"""The step of a prior, compiled over a model that need not be trained."""

import jax
import pytest

from lasers_jax.core import sharding
from lasers_jax.core.flops import count_flops
from lasers_jax.experiment import dry_run
from lasers_jax.experiment.priors.dry_run import of_prior
from tests import tiny
from tests.experiment.priors.conftest import config

FLOW = {'prior__name': 'flow', 'view': 'quantized'}


def task(**changes):
  return of_prior(config(**changes), tiny.config('/no/such/folder'), 2)


@pytest.mark.parametrize('kind', [{}, FLOW], ids=['ar', 'flow'])
def test_each_layer_computes_as_much_as_the_first(kind):
  mesh = sharding.make_mesh()

  def flops(layers):
    traced = dry_run.trace(task(prior__layers=layers, **kind), mesh)
    return count_flops(traced.jaxpr, 'cpu')

  one, two, five = flops(1), flops(2), flops(5)
  assert five - two == 3 * (two - one) > 0


def test_it_says_what_the_run_will_have():
  (found,) = dry_run.estimate(task(), ['here'])
  assert found.devices == len(jax.devices())
  assert found.batch_size == 8
  # Parameters, two moments and the average, in float32; and what each of 4,096
  # pairs means, in both planes, for the 4 channels of the decoder.
  means = 2 * 4096 * 4 * 4
  expected = 16 * found.parameters + means
  assert found.state_bytes == pytest.approx(expected, abs=64)
  assert found.fits
