"""A prior that a user adds is fitted, drawn from, kept and read like others."""

import jax
import numpy as np
import pytest

from lasers_jax.core.sharding import make_mesh
from lasers_jax.errors import InputError
from lasers_jax.evaluation import generation
from lasers_jax.priors import vector


@pytest.fixture(scope='module', autouse=True)
def jitter():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(vector.PRIORS, 'jitter', None)  # which is undone at the end
    from tests.extending import toy_prior

    vector.PRIORS['jitter'] = toy_prior.Jitter
    yield toy_prior


LATENTS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


def test_what_it_draws_is_near_what_it_was_fitted_on():
  prior = vector.parse('jitter:scale=0.01')
  drawn, seconds, _ = generation.fit_and_draw(
    prior, LATENTS, 64, 0, make_mesh(data=8)
  )
  assert drawn.shape == (64, 3)
  assert seconds.keys() == {'fit', 'draw'}
  apart = np.abs(drawn[:, None] - LATENTS[None]).max(axis=2)
  assert apart.min(axis=1).max() < 0.1  # ten deviations of the noise
  assert len(set(apart.argmin(axis=1))) > 20


def test_a_file_gives_it_back(tmp_path):
  prior, path = vector.parse('jitter:scale=0.5'), str(tmp_path / 'jitter.npz')
  state = prior.fit(LATENTS)
  vector.save(path, prior, state, {})
  again, read = vector.load(path, {})
  assert again == prior
  key = jax.random.key(0)
  np.testing.assert_array_equal(
    again.sample(read, key, 5), prior.sample(state, key, 5)
  )


def test_its_settings_have_ranges():
  with pytest.raises(InputError, match='scale is .0.: it must be'):
    vector.parse('jitter:scale=0')
