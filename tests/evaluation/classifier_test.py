"""The classifier whose features compare digits."""

import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.evaluation.classifier import WIDTH, Classifier, train_classifier


def pictures(n, seed):
  """Noise that is brighter at the left or at the right: which is the label."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, n)
  images = rng.integers(0, 128, (n, 8, 8, 3), np.uint8)
  images[labels == 0, :, :4] += 64
  images[labels == 1, :, 4:] += 64
  return images, labels


@pytest.fixture(scope='module')
def extractor():
  return train_classifier(*pictures(500, 0), steps=60)


def test_it_learns_to_tell_classes_apart(extractor):
  images, labels = pictures(400, 1)
  logits = extractor.module.apply(
    {'params': extractor.params}, extractor.prepare(images), method='logits'
  )
  assert np.mean(np.argmax(logits, axis=1) == labels) > 0.9


def test_features_see_what_it_tells_apart(extractor):
  images, labels = pictures(400, 1)
  features = extractor.module.apply(
    {'params': extractor.params}, extractor.prepare(images)
  )
  assert features.shape == (400, WIDTH) and features.dtype == jnp.float32
  sides = [extractor.start() for _ in range(2)]
  half = np.arange(400) < 200
  for (a, b), split in zip(sides, (half, labels == 0), strict=True):
    a.add(features[split])
    b.add(features[~split])
  alike, apart = (extractor.score(*side) for side in sides)
  assert apart > 10 * alike


def test_the_seed_says_all():
  images = pictures(50, 0)
  one, again, other = (
    train_classifier(*images, seed=seed, steps=2).params for seed in (0, 0, 1)
  )
  kernels = [x['head']['kernel'] for x in (one, again, other)]
  np.testing.assert_array_equal(kernels[0], kernels[1])
  assert not np.array_equal(kernels[0], kernels[2])


def test_labels_are_needed():
  with pytest.raises(InputError, match='needs a label for each image'):
    train_classifier(np.zeros((4, 8, 8, 3), np.uint8), np.full(4, -1))


def test_modules_of_equal_classes_are_equal():
  assert Classifier(3) == Classifier(3)
