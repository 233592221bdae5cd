"""Training that shows the decoder codes of fewer atoms."""

import jax
import numpy as np
import pytest

from lasers_jax.bottlenecks import Lasers
from tests.bottlenecks.rows import begin, normal

D, K, S = 8, 16, 3
KINDS = {
  'omp': {'coefficient_bits': 4},
  'rounded': {'pursuit': 'rounded', 'coefficient_bits': 2},
}


@pytest.fixture(scope='module')
def z():
  return normal((40, 4, 4, D), 0)


def start(fields, z):
  module = Lasers(**{'D': D, 'K': K, 'S': S, **fields})
  z = z[..., : module.D]
  return module, begin(module, z)[1], z


def train(module, variables, z, key=3):
  rngs = {'bottleneck': jax.random.key(key)}
  latent = module.apply(variables, z, train=True, rngs=rngs)
  return np.asarray(latent.quantized)


@pytest.mark.parametrize('kind', KINDS)
def test_each_image_is_decoded_as_at_some_smaller_s(z, kind):
  module, variables, z = start(KINDS[kind], z)
  found = train(module.clone(sparsity_dropout=1.0), variables, z)
  errors = []
  for s in range(1, S + 1):
    shorter = module.clone(S=s).apply(variables, z, train=False).quantized
    errors.append(abs(found - shorter).max(axis=(1, 2, 3)))
  assert (np.min(errors, axis=0) < 1e-5).all()
  counts = np.bincount(np.argmin(errors, axis=0), minlength=S)
  assert (counts >= 4).all()  # of 40; a third of them are expected


def test_a_share_of_images_is_cut(z):
  module, variables, z = start(KINDS['rounded'], z)
  whole = train(module, variables, z)
  found = train(module.clone(sparsity_dropout=0.5), variables, z)
  same = abs(found - whole).max(axis=(1, 2, 3)) < 1e-5
  assert 16 <= same.sum() <= 36  # a half and a third of the rest: 26.7


def test_evaluation_and_statistics_do_not_change(z):
  module, variables, z = start(KINDS['rounded'], z)
  cut = module.clone(sparsity_dropout=1.0)
  for one, other in zip(
    jax.tree.leaves(module.apply(variables, z, train=False)),
    jax.tree.leaves(cut.apply(variables, z, train=False)),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)
  updated = [
    x.apply(
      variables, z, train=True, mutable=['codebook'],
      rngs={'bottleneck': jax.random.key(0)},
    )[1]
    for x in (module, cut)
  ]  # fmt: skip
  jax.tree.map(np.testing.assert_array_equal, *updated)
