"""Sites that take as many atoms as they need."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax import coding
from lasers_jax.bottlenecks import Lasers
from tests.bottlenecks.rows import begin, normal

D, K, S = 8, 16, 4


@pytest.fixture(scope='module')
def started():
  """A module that takes all atoms, its variables, and latents to code.

  Some latents are near the mean, so that they need few atoms.
  """
  z = normal((6, 4, 4, D), 0) * jnp.linspace(0.1, 1.5, 6)[:, None, None, None]
  module = Lasers(D=D, K=K, S=S, pursuit='rounded', coefficient_bits=2)
  return module, begin(module, z)[1], z


def encode(module, variables, z):
  codes = module.apply(variables, z, method='encode')
  quantized = module.apply(variables, codes, method='decode')
  return codes, np.asarray(quantized)


@pytest.mark.parametrize('residual_norm', [0.3, 1.0, 3.0])
def test_a_site_takes_the_shortest_prefix_that_is_near_enough(
  residual_norm, started
):
  module, variables, z = started
  sizes = np.asarray(variables['codebook']['coefficients']['sizes'])
  enough = residual_norm * np.mean(sizes.astype(np.float64) ** 2)
  codes, found = encode(module.clone(residual_norm=residual_norm), variables, z)
  counts = np.sum(np.asarray(codes.atoms) < K, axis=-1)
  assert len(np.unique(counts)) > 2
  mean = np.asarray(variables['codebook']['mean'])
  sparsity_dropout = [np.broadcast_to(mean, z.shape)]
  for s in range(1, S + 1):
    sparsity_dropout.append(encode(module.clone(S=s), variables, z)[1])
  errors = np.sum((np.stack(sparsity_dropout) - np.asarray(z)) ** 2, axis=-1)
  near = errors <= enough
  near[S] = True
  np.testing.assert_array_equal(counts, near.argmax(axis=0))
  chosen = np.stack(sparsity_dropout)[(counts, *np.indices(counts.shape))]
  np.testing.assert_allclose(found, chosen, atol=1e-5)


def test_what_is_not_taken_comes_last_and_holds_nothing(started):
  module, variables, z = started
  codes, _ = encode(module.clone(residual_norm=1.0), variables, z)
  atoms, levels = map(np.asarray, codes)
  assert (np.diff(atoms) > 0)[atoms[..., 1:] < K].all()
  assert (levels[atoms == K] == 0).all()
  assert atoms.max() == K


def test_a_residual_norm_of_zero_takes_all_atoms(started):
  module, variables, z = started
  some, all_ = (
    encode(x, variables, z)[0]
    for x in (module.clone(residual_norm=0.0), module)
  )
  jax.tree.map(np.testing.assert_array_equal, some, all_)


def test_usage_counts_what_is_taken(started):
  module, variables, z = started
  module = module.clone(residual_norm=1.0)
  latent = module.apply(variables, z, train=False)
  taken = np.asarray(latent.codes.atoms).ravel()
  shares = np.bincount(taken[taken < K], minlength=K) / np.sum(taken < K)
  entropy = -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))
  assert latent.stats['perplexity'] == pytest.approx(np.exp(entropy), rel=1e-4)


def test_bits_are_those_of_all_codes_of_up_to_s_atoms():
  module = Lasers(
    D=D, K=K, S=3, pursuit='rounded', coefficient_bits=2, residual_norm=1.0
  )
  codes = sum(math.comb(K, s) * 4**s for s in range(4))
  assert module.bits_per_site == math.ceil(math.log2(codes))


def test_training_takes_all_atoms(started):
  module, variables, z = started
  one, other = (
    x.apply(variables, z, train=True).quantized
    for x in (module, module.clone(residual_norm=3.0))
  )
  np.testing.assert_array_equal(one, other)


def test_it_goes_with_rounding_in_the_pursuit(started):
  _, variables, z = started
  module = Lasers(D=D, K=K, S=S, residual_norm=1.0)
  with pytest.raises(
    ValueError, match="residual_norm goes with pursuit='rounded'"
  ):
    module.apply(variables, z, train=False)


def test_nothing_is_read_of_what_is_not_taken(started):
  module, variables, _ = started
  codes = coding.SparseCode(
    jnp.full((1, 1, S), K, jnp.int32), jnp.zeros((1, 1, S), jnp.int32)
  )
  found = module.apply(variables, codes, method='decode')
  mean = variables['codebook']['mean']
  np.testing.assert_array_equal(found[0, 0], mean)
