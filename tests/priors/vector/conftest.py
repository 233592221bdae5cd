"""What tests of priors fit."""

import pytest

from tests.priors.vector.small import LATENTS, small


@pytest.fixture(scope='session')
def fitted():
  """The state of each prior by its name, fitted when it is asked for."""
  states = {}

  def state(name):
    if name not in states:
      states[name] = small(name).fit(LATENTS, seed=1)
    return states[name]

  return state
