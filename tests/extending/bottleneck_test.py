"""A bottleneck from outside the package works wherever a name is asked for."""

import importlib

import jax
import numpy as np
import pytest

from lasers_jax.bottlenecks import BOTTLENECKS, start
from lasers_jax.bottlenecks.rates import fields_at
from lasers_jax.errors import InputError
from lasers_jax.experiment import loop, settings
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.presets import bottlenecks
from tests import tiny

SECTION = {'name': 'sign', 'scale': 1.0}


@pytest.fixture(scope='module')
def sign():
  """The class, registered for the tests of this file alone."""
  module = importlib.import_module('tests.extending.toy_bottleneck')
  BOTTLENECKS['sign'] = module.Sign
  yield module.Sign
  del BOTTLENECKS['sign']


@pytest.fixture(scope='module')
def workdir(sign, pictures, tmp_path_factory):
  """A run of a few steps."""
  section, weights = bottlenecks.choose('sign')
  config = tiny.config(pictures, bottleneck=section, loss__weights=weights)
  path = str(tmp_path_factory.mktemp('sign') / 'run')
  loop.train_and_evaluate(config, path)
  return path


def test_sections_are_made_of_its_fields(sign):
  section, weights = bottlenecks.choose('sign')
  assert section == {**SECTION, 'patch': 1}
  assert weights == {'pixel': 10.0, 'commitment': 0.25}
  section, weights = bottlenecks.choose('product-sign')
  assert section['inner'] == SECTION
  assert weights['commitment'] == 0.25


def test_a_field_that_it_has_not_is_refused(sign):
  network = {'name': 'vqvae', 'D': 4}
  with pytest.raises(InputError, match=r'scal; did you mean bottleneck\.scale'):
    settings.build_model(network, {'name': 'sign', 'scal': 2.0})


def test_it_meets_its_rate_and_says_so_of_others(sign):
  assert fields_at(BOTTLENECKS, SECTION, 16, 16, 64) == {}
  with pytest.raises(ValueError, match='8 bits a site are not D = 16'):
    fields_at(BOTTLENECKS, SECTION, 8, 16, 64)


def test_decoded_codes_are_the_forward_pass(sign):
  module, z = sign(D=4, scale=2.0), jax.random.normal(jax.random.key(1), (6, 4))
  variables = start(module, z, jax.random.key(0))
  codes = module.apply(variables, z, method='encode')
  quantized = module.apply(variables, codes, method='decode')
  latent = module.apply(variables, z, train=False)
  np.testing.assert_array_equal(latent.quantized, quantized)
  np.testing.assert_array_equal(quantized, 2 * np.sign(z))


def test_it_trains(workdir):
  losses = tiny.losses(workdir)
  assert losses[-1] < losses[0]
  assert all(line['commitment'] > 0 for line in tiny.metrics(workdir)[:6])


def test_files_come_back(workdir):
  pytest.importorskip('constriction')
  codec = load(workdir).encoder()
  image = tiny.images(1)[0]
  data = codec.encode(image)
  codes, *size = codec.codec.read(data)
  assert tuple(size) == image.shape[:2]
  np.testing.assert_array_equal(codes, codec.codes_of(image))
  assert codec.decode(data).shape == image.shape
