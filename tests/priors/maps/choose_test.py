import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.priors.maps import choose
from lasers_jax.priors.maps.choose import TokenDrawing

LOGITS = np.log(np.array([[0.05, 0.4, 0.1, 0.3, 0.15]], np.float32))


def kept(logits):
  return np.flatnonzero(np.isfinite(np.asarray(logits)[0])).tolist()


def test_guidance_acts_on_all_values():
  c = np.random.default_rng(0).normal(size=(3, 4, 7)).astype('f4')
  u = np.random.default_rng(1).normal(size=(3, 4, 7)).astype('f4')
  found = choose.guide(np.concatenate([c, u]), 2.5)
  np.testing.assert_allclose(found, u + 2.5 * (c - u), rtol=1e-6)


def test_guidance_comes_before_the_filters():
  # c prefers value 0, and guidance value 1: of c's filter only 0 would be left.
  c, u = np.array([[2.0, 1.9, 0.0]]), np.array([[2.0, 0.0, 0.0]])
  guided = choose.guide(np.concatenate([c, u]), 3.0)
  found = choose.sharpen(guided, TokenDrawing(guidance=3.0, top_k=1))
  assert kept(found) == [1]


def test_legality_comes_before_the_filters():
  legal = np.array([[True, False, True, False, True]])
  logits = choose.allow(LOGITS, legal)
  assert kept(choose.sharpen(logits, TokenDrawing(top_k=2))) == [2, 4]
  assert kept(choose.sharpen(logits, TokenDrawing(top_p=0.4))) == [4]
  np.testing.assert_array_equal(choose.allow(LOGITS, None), LOGITS)


def test_filters_that_keep_all_change_no_bit():
  drawing = TokenDrawing(top_k=5, top_p=1.0, temperature=1.0)
  assert choose.sharpen(LOGITS, drawing) is LOGITS
  loose = TokenDrawing(top_k=4)
  assert kept(choose.sharpen(LOGITS, loose)) == [1, 2, 3, 4]


def test_one_value_is_the_likeliest():
  logits = jax.random.normal(jax.random.key(0), (50, 3, 9))
  keys = jax.random.split(jax.random.key(1), 50)
  sharp = choose.sharpen(logits, TokenDrawing(top_k=1))
  found = choose.pick(keys, sharp)
  assert found.shape == (50, 3)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, jnp.argmax(logits, -1))


@pytest.mark.parametrize(
  'p, expected',
  [
    (0.3, [1]),
    (0.39, [1]),
    (0.5, [1, 3]),
    (0.75, [1, 3, 4]),
    (0.9, [1, 2, 3, 4]),
    (0.99, [0, 1, 2, 3, 4]),
  ],
)
def test_top_p_keeps_the_least_set_of_that_mass(p, expected):
  found = choose.sharpen(LOGITS, TokenDrawing(top_p=p))
  assert kept(found) == expected
  np.testing.assert_array_equal(found[0, expected], LOGITS[0, expected])


def test_temperature_top_k_and_top_p_act_in_this_order():
  # 0.4 and 0.3 are 0.97 and 0.03 at a temperature of 1/12, and 4/7 and 3/7
  # after top-k.
  assert kept(choose.sharpen(LOGITS, TokenDrawing(top_p=0.6))) == [1, 3]
  drawing = TokenDrawing(temperature=1 / 12, top_p=0.6)
  assert kept(choose.sharpen(LOGITS, drawing)) == [1]
  assert kept(choose.sharpen(LOGITS, TokenDrawing(top_k=2, top_p=0.5))) == [1]


def test_values_as_likely_as_the_last_one_are_kept():
  logits = np.zeros((1, 4), np.float32)
  for drawing in TokenDrawing(top_k=2), TokenDrawing(top_p=0.3):
    assert kept(choose.sharpen(logits, drawing)) == [0, 1, 2, 3]


def test_draws_follow_the_distribution_and_their_own_key():
  keys = jax.random.split(jax.random.key(0), 20_000)
  logits = jnp.broadcast_to(LOGITS, (20_000, 5))
  found = choose.pick(keys, logits)
  shares = np.bincount(found, minlength=5) / 20_000
  np.testing.assert_allclose(shares, np.exp(LOGITS[0]), atol=0.015)
  np.testing.assert_array_equal(choose.pick(keys[7:9], logits[:2]), found[7:9])


def test_guidance_rises_along_its_ramp():
  t = np.array([0.0, 0.25, 0.5, 1.0], np.float32)
  constant = TokenDrawing(guidance=5.0).guidance_at(t)
  np.testing.assert_array_equal(constant, [5, 5, 5, 5])
  linear = TokenDrawing(guidance=5.0, ramp='linear').guidance_at(t)
  np.testing.assert_allclose(linear, [1, 2, 3, 5])
  cosine = TokenDrawing(guidance=5.0, ramp='power-cosine', ramp_power=2.0)
  expected = 1 + 4 * (1 - np.cos(np.pi * t**2)) / 2
  np.testing.assert_allclose(cosine.guidance_at(t), expected, rtol=1e-6)


def test_unfit_settings_are_said():
  with pytest.raises(InputError, match="ramp.*'cosin'.*power-cosine"):
    TokenDrawing(ramp='cosin')
  with pytest.raises(InputError, match='top_p is 0.*more than 0'):
    TokenDrawing(top_p=0.0)
  with pytest.raises(InputError, match='temperature'):
    TokenDrawing(temperature=0.0)
