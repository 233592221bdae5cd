"""Sites drawn each on its own."""

import jax
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import SiteHistogram, draw

KEY = jax.random.key(2)


def codes(n, places, shares, seed=0):
  """Latents of sites with one of three codes [2], each with its share."""
  book = np.float32([[0, 0], [1, 5], [2, 7]])
  drawn = np.random.default_rng(seed).choice(3, (n, places), p=shares)
  return book[drawn].reshape(n, -1)


def test_codes_come_as_often_as_they_were_used():
  latents = codes(2_000, 4, (0.7, 0.2, 0.1))
  prior = SiteHistogram(2)
  drawn = draw(prior, prior.fit(latents), KEY, 5_000)
  assert drawn.shape == (5_000, 8)
  sites = np.asarray(drawn).reshape(-1, 2)
  np.testing.assert_array_equal(np.unique(sites, axis=0)[:, 1], [0, 5, 7])
  shares = [np.mean(sites[:, 0] == code) for code in range(3)]
  used = [np.mean(latents[:, ::2] == code) for code in range(3)]
  np.testing.assert_allclose(shares, used, atol=4 * (0.25 / 20_000) ** 0.5)


def test_sites_of_an_image_do_not_hang_together():
  latents = np.repeat(codes(500, 1, (0.5, 0.3, 0.2)), 4, axis=1)
  prior = SiteHistogram(2)
  drawn = np.asarray(draw(prior, prior.fit(latents), KEY, 4_000))
  assert abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 4 / 4_000**0.5


def test_one_site_is_a_training_latent():
  latents = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
  prior = SiteHistogram(3)
  drawn = np.asarray(draw(prior, prior.fit(latents), KEY, 200))
  near = np.abs(drawn[:, None] - latents[None]).max(axis=2).min(axis=1)
  assert not near.any()


def test_no_more_sites_are_kept_than_asked_for():
  latents = np.arange(60, dtype=np.float32).reshape(10, 6)
  prior = SiteHistogram(2, most=7)
  kept = [prior.fit(latents, seed)['sites'] for seed in (1, 1, 2)]
  assert kept[0].shape == (7, 2)
  np.testing.assert_array_equal(kept[0], kept[1])
  assert not np.array_equal(kept[0], kept[2])
  assert len(np.unique(kept[0][:, 0])) == 7


def test_latents_are_made_of_sites():
  with pytest.raises(InputError, match='6 numbers are not made of sites of 4'):
    SiteHistogram(4).fit(np.zeros((5, 6)))
