"""A degradation that a user adds is a section of a config like the others."""

import jax
import numpy as np
import pytest

from lasers_jax.core.images import to_float
from lasers_jax.degradations import (
  DEGRADATIONS,
  degrade,
  in_evaluation,
  row_keys,
)
from lasers_jax.errors import InputError
from lasers_jax.experiment.settings import from_config, with_defaults
from tests import tiny


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setitem(DEGRADATIONS, 'posterize', None)  # undone at the end
  from tests.extending.toy_degradation import Posterization

  monkeypatch.setitem(DEGRADATIONS, 'posterize', Posterization)
  return {**tiny.config(''), 'degradation': {'name': 'posterize', 'levels': 3}}


def test_a_config_builds_it(config):
  settings = from_config(config).degradation
  assert settings.levels == 3
  assert with_defaults(config)['degradation']['protocol'] == 'code'
  images = tiny.images(2)
  keys = row_keys(jax.random.key(0), 2)
  inputs = degrade(settings, to_float(images), keys).inputs
  assert set(np.unique(inputs)) <= {0.0, 0.5, 1.0}
  alone = in_evaluation(settings, images[1], 5)
  np.testing.assert_array_equal(inputs[1], alone.inputs)


def test_its_fields_are_checked(config):
  config['degradation']['levels'] = 1
  with pytest.raises(InputError, match='degradation.levels is 1: it must be'):
    from_config(config)
