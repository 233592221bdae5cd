"""What an MQ-VAE costs, and which fields it refuses."""

import math

import pytest

from lasers_jax.bottlenecks import VQ
from lasers_jax.bottlenecks.continuous import Identity
from lasers_jax.experiment import settings
from tests.bottlenecks.mqvae_reference import INNER, D, K, mqvae


@pytest.mark.parametrize(
  'keep, n, m',
  [
    (0.25, 16, 4),
    (0.25, 18, 4),
    (0.25, 3, 1),
    (0.01, 16, 1),
    (1.0, 16, 16),
    (0.29, 100, 29),
    (0.3, 1024, 307),
  ],
)
def test_how_many_are_kept(keep, n, m):
  assert mqvae(keep=keep).kept(n) == m


@pytest.mark.parametrize(
  'keep, height, width, m',
  [
    (0.25, 4, 4, 4),
    (0.25, 3, 6, 4),
    (0.5, 8, 8, 32),
    (1.0, 4, 4, 16),
    (0.01, 4, 4, 1),
    (0.3, 32, 32, 307),
  ],
)
def test_bits_are_those_of_positions_and_codes(keep, height, width, m):
  bits = mqvae(keep=keep).map_bits(height, width)
  positions = math.comb(height * width, m)
  assert 2 ** (bits - 4 * m) >= positions
  assert 2 ** (bits - 4 * m - 1) < positions


def test_bits_of_a_site_are_those_of_a_large_map():
  for keep in (0.1, 0.25, 0.5, 1.0):
    module = mqvae(keep=keep)
    rate = module.map_bits(256, 256) / 256**2
    assert abs(rate - module.bits_per_site) < 1e-3
  assert mqvae(keep=0.5).bits_per_site == 1 + 0.5 * 4
  assert mqvae(keep=1.0).bits_per_site == 4


def test_bits_of_others_are_those_of_their_sites():
  assert INNER.map_bits(3, 5) == 15 * INNER.bits_per_site
  assert Identity(D=D).map_bits(3, 5) is None


def test_settings_count_the_bits_of_an_image():
  run = settings.from_config(
    {
      'seed': 0,
      'steps': 1,
      'batch_size': 2,
      'data': {'name': 'photos', 'side': 32},
      'network': {'name': 'vqvae', 'D': 16},
      'bottleneck': {'name': 'mqvae', 'inner': {'name': 'vq', 'K': 512}},
    }
  )
  f = run.model.encoder.f
  n = (32 // f) ** 2
  bits = math.ceil(math.log2(math.comb(n, n // 4))) + n // 4 * 9
  assert run.bits_per_pixel == bits / 32**2


@pytest.mark.parametrize(
  'fields, message',
  [
    (
      {'inner': VQ(D=4, K=K)},
      'inner must have D = 8, as the sites do, got 4',
    ),
    (
      {'inner': Identity(D=D)},
      'inner must have discrete codes, and those of Identity are continuous',
    ),
    ({'inner': VQ(D=D, K=1)}, 'K is 1: it must be a whole number, at least 2'),
  ],
)
def test_fields_that_contradict_are_refused(fields, message):
  with pytest.raises(ValueError) as error:
    mqvae(**fields).check()
  assert str(error.value) == message
