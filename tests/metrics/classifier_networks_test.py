"""The networks of classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.metrics.classifier_networks import (
  CHANNELS,
  Classifier,
  ResidualClassifier,
  folded,
)


def test_folded_layers_give_what_normalised_ones_gave():
  """Where the kept means and variances are those of a batch, by that batch."""
  module, rng = ResidualClassifier(3), np.random.default_rng(0)
  images = rng.random((12, 16, 16, 3), np.float32)
  start = module.init(jax.random.key(0), images, True, method='logits')
  params = jax.tree.map(
    lambda x: x + 0.2 * rng.normal(size=x.shape).astype(np.float32),
    start['params'],
  )
  statistics = jax.tree.map(jnp.zeros_like, start['batch_stats'])
  expected, new = module.apply(
    {'params': params, 'batch_stats': statistics},
    images, True, mutable=['batch_stats'], method='logits',
  )  # fmt: skip
  own = jax.tree.map(lambda x: x / 0.05, new['batch_stats'])
  plain = folded(params, own)
  found = module.apply({'params': plain}, images, method='logits')
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
  assert float(np.std(expected)) > 0.1
  shapes = jax.eval_shape(
    lambda key: module.init(key, images, method='logits'), jax.random.key(0)
  )
  assert jax.tree.map(jnp.shape, plain) == jax.tree.map(
    jnp.shape, shapes['params']
  )


def test_what_is_not_normalised_is_not_folded():
  params = Classifier(3).init(
    jax.random.key(0), jnp.zeros((1, 8, 8, 3)), method='logits'
  )['params']
  jax.tree.map(np.testing.assert_array_equal, folded(params, {}), params)


@pytest.mark.parametrize('side', [8, 28, 30, 64])
def test_any_even_side_gives_as_many_features(side):
  module = ResidualClassifier(3)
  images = jnp.zeros((2, side, side, 3))
  features, _ = jax.eval_shape(
    lambda key: module.init_with_output(key, images), jax.random.key(0)
  )
  assert features.shape == (2, 4 * CHANNELS)
