"""The classifier whose features compare digits."""

import dataclasses
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lasers_jax.core.arrays import read_arrays
from lasers_jax.errors import InputError
from lasers_jax.metrics import classifier, classifier_networks
from lasers_jax.metrics.classifier import (
  NAME,
  RECIPES,
  classes_of,
  kept_classifier,
  move,
  suited,
  train_classifier,
)
from lasers_jax.metrics.classifier_networks import WIDTH, Classifier


def brief(steps, name=NAME):
  """A recipe that takes few steps."""
  return dataclasses.replace(RECIPES[name], steps=steps)


def pictures(n, seed):
  """Noise that is brighter at the left or at the right: which is the label."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, n)
  images = rng.integers(0, 128, (n, 8, 8, 3), np.uint8)
  images[labels == 0, :, :4] += 64
  images[labels == 1, :, 4:] += 64
  return images, labels


@pytest.fixture(scope='module', params=RECIPES)
def extractor(request):
  return train_classifier(*pictures(500, 0), brief(60, request.param))


@pytest.fixture(scope='module', autouse=True)
def narrow():
  """Makes the residual network cheap."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(classifier_networks, 'CHANNELS', 4)
    yield


def features_of(extractor, images):
  return extractor.module.apply(
    {'params': extractor.params}, extractor.prepare(images)
  )


def test_it_learns_to_tell_classes_apart(extractor):
  images, labels = pictures(400, 1)
  found = classes_of(extractor, features_of(extractor, images))
  assert np.mean(found == labels) > 0.9
  logits = extractor.module.apply(
    {'params': extractor.params}, extractor.prepare(images), method='logits'
  )
  np.testing.assert_array_equal(found, np.argmax(logits, axis=1))


def test_features_see_what_it_tells_apart(extractor):
  images, labels = pictures(400, 1)
  features = features_of(extractor, images)
  assert features.shape in ((400, WIDTH), (400, 4 * 4))
  assert features.dtype == jnp.float32
  sides = [extractor.start() for _ in range(2)]
  half = np.arange(400) < 200
  for (a, b), split in zip(sides, (half, labels == 0), strict=True):
    a.add(features[split])
    b.add(features[~split])
  alike, apart = (extractor.score(*side) for side in sides)
  assert apart > 10 * alike


def test_features_do_not_depend_on_the_batch(extractor):
  images, _ = pictures(3, 1)
  together = features_of(extractor, images)
  alone = [features_of(extractor, x[None])[0] for x in images]
  np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', RECIPES)
def test_the_seed_says_all(name):
  images = pictures(50, 0)
  one, again, other = (
    train_classifier(*images, brief(2, name), seed, mirror=True).params
    for seed in (0, 0, 1)
  )
  kernels = [x['head']['kernel'] for x in (one, again, other)]
  np.testing.assert_array_equal(kernels[0], kernels[1])
  assert not np.array_equal(kernels[0], kernels[2])


def test_labels_are_needed():
  with pytest.raises(
    InputError, match='a label .*--features=fd-vgg16 needs none'
  ):
    train_classifier(
      np.zeros((4, 8, 8, 3), np.uint8), np.full(4, -1), RECIPES[NAME]
    )


def test_modules_of_equal_classes_are_equal():
  assert Classifier(3) == Classifier(3)


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """A cache of its own; how often a classifier was trained."""
  trained = []

  def train(images, labels, recipe, seed, mirror):
    trained.append((recipe.steps, seed, mirror))
    return train_classifier(images, labels, recipe, seed, mirror)

  monkeypatch.setattr(classifier, 'train_classifier', train)
  monkeypatch.setattr(classifier, 'cache_folder', lambda: str(tmp_path))
  return tmp_path, trained


def test_the_same_pictures_are_learned_once(cache):
  folder, trained = cache
  images, labels = pictures(50, 0)
  first, again = (kept_classifier(images, labels, brief(2)) for _ in range(2))
  assert trained == [(2, 0, False)]
  jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
  features = [
    x.module.apply({'params': x.params}, x.prepare(images))
    for x in (first, again)
  ]
  np.testing.assert_array_equal(*features)
  assert len(os.listdir(folder / 'classifiers')) == 1


def test_other_pictures_and_recipes_are_learned_anew(cache):
  _, trained = cache
  images, labels = pictures(50, 0)
  one = brief(1)
  kept_classifier(images, labels, one)
  other = images.copy()
  other[-1, 0, 0, 0] ^= 1
  recipes = [
    dataclasses.replace(one, **{name: value})
    for name, value in {
      'rate': 1e-2, 'version': 0, 'steps': 2, 'batch': 64, 'shift': 1,
      'smoothing': 0.1,
    }.items()
  ]  # fmt: skip
  for count, arguments in enumerate([
    (other, labels, one), (images, 1 - labels, one),
    (images[:40], labels[:40], one), (images, labels, one, 1),
    (images, labels, one, 0, True), *((images, labels, x) for x in recipes),
    (images, labels, brief(1, 'fd-resnet')),
  ], 2):  # fmt: skip
    kept_classifier(*arguments)
    assert len(trained) == count


@pytest.mark.parametrize('kind', ['cut', 'text', 'folder', 'other', 'nan'])
def test_a_damaged_file_is_learned_anew(kind, cache, caplog):
  folder, trained = cache
  images, labels = pictures(50, 0)
  kept_classifier(images, labels, brief(1))
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
  found = kept_classifier(images, labels, brief(1))
  assert len(trained) == 2
  assert 'is damaged' in caplog.text
  assert np.isfinite(found.params['head']['bias']).all()
  kept_classifier(images, labels, brief(1))
  assert len(trained) == (3 if kind == 'folder' else 2)


def test_without_a_place_nothing_is_kept(cache, caplog):
  folder, trained = cache
  (folder / 'classifiers').write_text('')
  for count in (1, 2):
    kept_classifier(*pictures(50, 0), brief(1))
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


def test_images_choose_the_recipe():
  images, _ = pictures(20, 0)
  grey = images[..., [0, 0, 0]]
  assert suited(grey) == NAME
  assert suited(images) == 'fd-resnet'
  grey[-1, 0, 0, 0] ^= 1
  assert suited(grey) == 'fd-resnet'
  assert {NAME, 'fd-resnet'} == RECIPES.keys()


def test_moved_images_are_moved_by_so_much():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2000, 6, 9, 3), np.uint8)
  padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), 'reflect')
  places = [
    padded[:, i : i + 6, j : j + 9] for i in range(5) for j in range(5)
  ]  # fmt: skip
  for mirror, possible in (
    (False, places),
    (True, [*places, *(x[:, :, ::-1] for x in places)]),
  ):
    moved = move(images, 2, mirror, np.random.default_rng(1))
    same = [(x == moved).all(axis=(1, 2, 3)) for x in possible]
    assert np.all(np.sum(same, axis=0) >= 1)
    assert np.all(np.sum(same, axis=1) >= 1)  # each way occurs
  np.testing.assert_array_equal(move(images, 0, False, rng), images)


def test_the_recipe_of_digits_gives_the_weights_of_committed_results():
  """The first steps of Adam, as they were before there were recipes."""
  images, labels = pictures(300, 0)
  found = train_classifier(images, labels, brief(3)).params
  module = Classifier(2)
  params = module.init(
    jax.random.key(0), jnp.zeros((1, 8, 8, 3)), method='logits'
  )
  optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, 3))
  state, rng = optimizer.init(params), np.random.default_rng(0)

  @jax.jit
  def step(params, state, images, labels):
    def loss(params):
      logits = module.apply(params, images / 255, method='logits')
      chosen = jnp.take_along_axis(
        jax.nn.log_softmax(logits), labels[:, None], axis=1
      )
      return -jnp.mean(chosen)

    gradient = jax.grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state

  for _ in range(3):
    rows = rng.integers(0, 300, 128)
    params, state = step(
      params, state, images[rows].astype(np.float32), labels[rows]
    )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
    found,
    params['params'],
  )
