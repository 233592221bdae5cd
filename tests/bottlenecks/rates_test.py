"""Settings that meet a rate: they cost what was asked, or a line says why."""

import contextlib

import pytest

from lasers_jax.bottlenecks import BOTTLENECKS
from lasers_jax.bottlenecks.rates import fields_at
from lasers_jax.experiment import settings
from lasers_jax.experiment.presets import bottlenecks

D, SIDE = 16, 8
ROUNDED = {'pursuit': 'rounded'}


def section(name):
  return bottlenecks.choose(name)[0]


def solve(name, bits):
  return fields_at(BOTTLENECKS, section(name), bits, D, SIDE**2)


def bits_at(name, bits):
  """What a site costs with the settings that are to cost so many bits."""
  known = section(name)
  fields = solve(name, bits)
  if 'inner' in fields:
    fields['inner'] = {**known['inner'], **fields['inner']}
  network = {'name': 'vqvae', 'D': D, 'f': 4}
  model = settings.build_model(network, {**known, **fields})
  return model.bottleneck.map_bits(SIDE, SIDE) / SIDE**2


@pytest.mark.parametrize('bits', [9, 32])
@pytest.mark.parametrize('name', [*BOTTLENECKS, 'residual-fsq', 'product-bsq'])
def test_settings_cost_what_was_asked(name, bits):
  try:
    cost = bits_at(name, bits)
  except ValueError as error:
    assert f'{bits} bits a site' in str(error)
  else:
    assert 0.98 * bits <= cost <= bits if name == 'mqvae' else cost == bits


def test_most_meet_the_rate_of_512_codes():
  met = []
  for name in BOTTLENECKS:
    with contextlib.suppress(ValueError):
      met.append(solve(name, 9) and name)
  assert set(BOTTLENECKS) - set(met) == {
    'priced',
    'lattice',
    'entropy',
    'product',
    'kl',
    'none',
    'wae',
    'info_vae',
    'rae',
  }


@pytest.mark.parametrize(
  'name, bits, fields',
  [
    ('vq', 9, {'K': 512}),
    ('fsq', 9, {'levels': (8, 8, 8)}),
    ('fsq', 10, {'levels': (16, 8, 8)}),
    ('fsq', 1, {'levels': (2,)}),
    ('bsq', 32, {'bits': 32}),
    ('lattice', 48, {'limit': 3}),
    ('entropy', 32, {'limit': 1, 'step': 1.3333}),
    ('priced', 48, {'limit': 3, 'step': 0.5714}),
    ('residual', 32, {'depth': 4, 'inner': {'K': 256}}),
    ('residual', 13, {'depth': 13, 'inner': {'K': 2}}),
    ('product', 32, {'groups': 4, 'inner': {'K': 256}}),
    ('product-lattice', 64, {'groups': 8, 'inner': {'limit': 7}}),
    ('none', 64, {'value_bits': 4}),
    ('none', 16, {'value_bits': 1}),
    ('lasers', 9, {**ROUNDED, 'K': 256, 'S': 1, 'coefficient_bits': 1}),
    ('lasers', 32, {**ROUNDED, 'K': 739, 'S': 3, 'coefficient_bits': 2}),
    ('mqvae', 9, {'keep': 53 / 64, 'inner': {'K': 1024}}),
  ],
)
def test_settings_are_those_that_one_would_choose(name, bits, fields):
  assert solve(name, bits) == fields


@pytest.mark.parametrize(
  'name, bits, message',
  [
    ('vq', 8.5, r'8\.5 bits a site: must be a whole number from 1'),
    ('vq', 0, '0 bits a site: must be a whole number'),
    ('ibq', 19, r'19 bits a site are 2\^19 codes, and at most 262,144 fit'),
    ('fsq', 33, 'one number of at most 32 bits'),
    ('lfq', 33, 'one number of at most 32 bits'),
    ('lattice', 16, 'not 2 or more whole bits for each of D = 16 channels'),
    ('none', 40, 'not 1 or more whole bits for each of D = 16 channels'),
    ('product', 9, '9 bits a site do not split among groups that divide D'),
    ('residual', 1, '1 bits a site do not split among levels'),
    ('mqvae', 32, '32 bits a site are more than 64 sites can spend'),
    ('lista', 3, '3 bits a site are not pairs of an atom'),
    ('lasers', 1, '1 bits a site are not a few atoms with a bit or two each'),
  ],
)
def test_a_rate_that_cannot_be_met_is_one_line(name, bits, message):
  with pytest.raises(ValueError, match=message) as caught:
    solve(name, bits)
  assert '\n' not in str(caught.value)
