"""The classifier whose features compare digits."""

import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.core.arrays import read_arrays
from lasers_jax.errors import InputError
from lasers_jax.metrics import classifier
from lasers_jax.metrics.classifier import (
  WIDTH,
  Classifier,
  kept_classifier,
  train_classifier,
)


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
  assert features.shape == (400, WIDTH)
  assert features.dtype == jnp.float32
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


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """A cache of its own; how often a classifier was trained."""
  trained = []

  def train(images, labels, seed=0, steps=classifier.STEPS):
    trained.append((seed, steps))
    return train_classifier(images, labels, seed, steps)

  monkeypatch.setattr(classifier, 'train_classifier', train)
  monkeypatch.setattr(classifier, 'cache_folder', lambda: str(tmp_path))
  return tmp_path, trained


def test_the_same_pictures_are_learned_once(cache):
  folder, trained = cache
  images, labels = pictures(50, 0)
  first, again = (kept_classifier(images, labels, 0, 2) for _ in range(2))
  assert trained == [(0, 2)]
  jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
  features = [
    x.module.apply({'params': x.params}, x.prepare(images))
    for x in (first, again)
  ]
  np.testing.assert_array_equal(*features)
  assert len(os.listdir(folder / 'classifiers')) == 1


def test_other_pictures_and_recipes_are_learned_anew(cache, monkeypatch):
  _, trained = cache
  images, labels = pictures(50, 0)
  kept_classifier(images, labels, 0, 2)
  other = images.copy()
  other[-1, 0, 0, 0] ^= 1
  for count, arguments in enumerate([
    (other, labels, 0, 2), (images, 1 - labels, 0, 2), (images, labels, 1, 2),
    (images, labels, 0, 1), (images[:40], labels[:40], 0, 2),
  ], 2):  # fmt: skip
    kept_classifier(*arguments)
    assert len(trained) == count
  for name, value in ('RATE', 1e-2), ('_VERSION', 0):
    monkeypatch.setattr(classifier, name, value)
    kept_classifier(images, labels, 0, 2)
    count += 1
    assert len(trained) == count


@pytest.mark.parametrize('kind', ['cut', 'text', 'folder', 'other', 'nan'])
def test_a_damaged_file_is_learned_anew(kind, cache, caplog):
  folder, trained = cache
  images, labels = pictures(50, 0)
  kept_classifier(images, labels, 0, 1)
  (path,) = (folder / 'classifiers').iterdir()
  arrays = read_arrays(path)
  if kind == 'cut':
    path.write_bytes(path.read_bytes()[:-9])
  elif kind == 'text':
    path.write_text('text')
  elif kind == 'folder':
    path.unlink()
    path.mkdir()
  elif kind == 'other':
    np.savez(path, **{**arrays, 'head/bias': np.zeros(3, np.float32)})
  else:
    np.savez(path, **{**arrays, 'head/bias': np.float32([0, np.nan])})
  found = kept_classifier(images, labels, 0, 1)
  assert len(trained) == 2
  assert 'is damaged' in caplog.text
  assert np.isfinite(found.params['head']['bias']).all()
  kept_classifier(images, labels, 0, 1)
  assert len(trained) == (3 if kind == 'folder' else 2)


def test_without_a_place_nothing_is_kept(cache, caplog):
  folder, trained = cache
  (folder / 'classifiers').write_text('')
  for count in (1, 2):
    kept_classifier(*pictures(50, 0), 0, 1)
    assert len(trained) == count
  assert 'not kept in' in caplog.text


def test_the_place_is_that_of_compiled_programs(monkeypatch):
  home = os.path.expanduser('~/.cache/lasers_jax')
  for folder, expected in (
    ('/some/where', '/some/where'),
    (None, home),
    ('gs://bucket/x', home),
  ):
    with monkeypatch.context() as patch:
      config = types.SimpleNamespace(jax_compilation_cache_dir=folder)
      patch.setattr(classifier, 'jax', types.SimpleNamespace(config=config))
      assert classifier.cache_folder() == expected
