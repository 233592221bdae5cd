"""Sections by name: generated, and yet the numbers that runs were made with."""

import dataclasses

import pytest

from lasers_jax.bottlenecks import BOTTLENECKS
from lasers_jax.errors import InputError
from lasers_jax.experiment.presets import autoencoders, bottlenecks

# Fields that the recorded runs name; bottlenecks that came later are not here.
# What else a class has is its default.
FIELDS = {
  'lasers': dict(
    K=512,
    S=5,
    learning='gradient',
    coefficient_bits=8,
    pursuit='omp',
    patch=1,
    progressive=False,
    sparsity_dropout=0.0,
    revive_every=50,
    revive_below=0.02,
  ),
  'vq': dict(
    K=512,
    learning='ema',
    distance='euclidean',
    start='data',
    assignment='nearest',
    gradient='straight_through',
    affine=0.0,
    synchronized=0.0,
    rate=50.0,
    decay=0.99,
    revive_every=50,
    revive_below=0.02,
  ),
  'simvq': dict(K=512),
  'ibq': dict(K=512, entropy_temperature=0.01),
  'cvq': dict(
    K=512,
    distance='cosine',
    anchors='probrandom',
    decay=0.99,
    revive_every=1,
  ),
  'hypervq': dict(
    K=512,
    curvature=1.0,
    temperature=1.0,
    decay=0.97,
    revive_every=20,
    revive_below=0.1,
    revive_limit=64,
  ),
  'fsq': dict(levels=(8, 8, 8)),
  'lfq': dict(bits=9, temperature=0.01, gamma=1.0),
  'bsq': dict(bits=9, temperature=1.0, gamma=1.0),
  'lattice': dict(initial_points=512, limit=7),
  'entropy': dict(limit=31, step=0.1, max_step_scale=1.0),
  'residual': dict(depth=4, dropout=0.0),
  'product': dict(groups=4),
  'mqvae': dict(keep=0.25, blocks=2, width=64),
  'scq': dict(K=512, penalty=0.1, keep=None, coefficient_bits=8),
  'lista': dict(
    K=512,
    iterations=16,
    penalty=0.1,
    learning='gradient',
    keep=None,
    coefficient_bits=8,
  ),
  'kl': dict(value_bits=None),
  'none': dict(value_bits=None),
  'wae': dict(value_bits=None),
  'info_vae': dict(alpha=0.0, lambda_=100.0, value_bits=None),
  'rae': dict(value_bits=None),
}
OF_COPIES = ('residual', 'product', 'mqvae')
WEIGHTS = {
  'lasers': dict(dictionary=1.0, commitment=0.25),
  'vq': dict(commitment=0.25),
  'simvq': dict(codebook=1.0, commitment=0.25),
  'ibq': dict(double=1.0, codebook=1.0, commitment=0.25, entropy=0.05),
  'cvq': dict(codebook=1.0, commitment=0.25),
  'hypervq': {},
  'fsq': {},
  'lfq': dict(entropy=0.1, commitment=0.25),
  'bsq': dict(entropy=0.1, commitment=0.0),
  'lattice': dict(codebook=1.0, commitment=0.25, size=0.01),
  'entropy': dict(rate=1e-3),
  'residual': dict(commitment=0.25),
  'product': dict(commitment=0.25),
  'mqvae': dict(commitment=0.25),
  'scq': dict(quantization=1.0),
  'lista': dict(latent=1.0),
  'kl': dict(kl=1e-4),
  'none': {},
  'wae': dict(mmd=1.0),
  'info_vae': dict(info=1e-4),
  'rae': dict(norm=1e-4),
}


@pytest.mark.parametrize('name', FIELDS)
def test_sections_are_the_recorded_ones(name):
  section, weights = bottlenecks.choose(name)
  expected = {'name': name, **FIELDS[name]}
  if name in OF_COPIES:
    inner = section['inner']
    assert inner.items() >= {'name': 'vq', **FIELDS['vq']}.items()
  assert section.items() >= expected.items()
  assert weights == {'pixel': 10.0, **WEIGHTS[name]}


@pytest.mark.parametrize('name', BOTTLENECKS)
def test_every_field_is_a_key(name):
  section, _ = bottlenecks.choose(name)
  fields = {f.name for f in dataclasses.fields(BOTTLENECKS[name])}
  assert section.keys() == fields - {'D', 'parent'} | {'patch'}
  assert type(section) is dict
  assert type(section.get('inner', {})) is dict


@pytest.mark.parametrize('outer', OF_COPIES)
@pytest.mark.parametrize('inner', ['fsq', 'lasers', 'lfq'])
def test_copies_are_of_what_a_name_says(outer, inner):
  section, weights = bottlenecks.choose(f'{outer}-{inner}')
  assert section['name'] == outer
  # What is copied codes the signals of the whole: it cuts no patches.
  assert {**section['inner'], 'patch': 1} == bottlenecks.choose(inner)[0]
  assert weights == bottlenecks.choose(inner)[1]


def test_copies_may_be_of_copies():
  section, weights = bottlenecks.choose('residual-product-fsq')
  assert section['inner']['inner']['name'] == 'fsq'
  assert weights == {'pixel': 10.0}


@pytest.mark.parametrize('name', ['vq', 'lasers', 'scq'])
def test_the_number_of_codes_is_set(name):
  assert bottlenecks.choose(name, K=64)[0]['K'] == 64
  assert bottlenecks.choose('residual-' + name, K=64)[0]['inner']['K'] == 64


def test_the_points_of_a_lattice_are_as_many_as_codes_of_others():
  assert bottlenecks.choose('lattice', K=64)[0]['initial_points'] == 64
  assert 'K' not in bottlenecks.choose('fsq', K=64)[0]


@pytest.mark.parametrize(
  'name, message',
  [
    ('laser', "the bottleneck is 'laser': did you mean lasers?"),
    ('product-fsk', "the bottleneck is 'fsk': did you mean fsq?"),
    ('vq-fsq', "vq is not made of copies of another: 'vq-fsq'"),
  ],
)
def test_names_that_cannot_be(name, message):
  with pytest.raises(InputError) as error:
    bottlenecks.choose(name)
  assert str(error.value) == message


@pytest.mark.parametrize(
  'name, bottleneck, terms',
  [
    ('ae', 'none', {}),
    ('vae', 'kl', {'kl': 1.0}),
    ('beta_vae', 'kl', {'kl': 0.1}),
    ('wae', 'wae', {'mmd': 100.0}),
    ('info_vae', 'info_vae', {'info': 1.0}),
    ('rae', 'rae', {'norm': 1e-4, 'decoder_norm': 1e-7}),
  ],
)
def test_autoencoders_are_the_recorded_ones(name, bottleneck, terms):
  section, weights = autoencoders.choose(name, 3 * 64**2)
  assert section == bottlenecks.choose(bottleneck)[0]
  assert weights == {'pixel': 3 * 64**2 / 2, **terms}
