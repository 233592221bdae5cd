"""Reading, drawing and scoring of new images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax import inference
from lasers_jax.core.images import to_uint8_range
from lasers_jax.core.sharding import make_mesh
from lasers_jax.errors import InputError
from lasers_jax.evaluation import generation
from lasers_jax.evaluation.generation import ImageSet
from lasers_jax.experiment import settings
from lasers_jax.metrics.frechet import FeatureStatistics, frechet_distance
from lasers_jax.metrics.registry import Extractor
from lasers_jax.priors import vector
from lasers_jax.report.generation_table import overview, table
from tests import tiny

D, SIDE = 3, 8
NETWORK = {
  'name': 'vector',
  'D': D,
  'side': SIDE,
  'channels': 4,
  'num_downsamples': 1,
}


class Mean:
  """The mean colour."""

  def apply(self, variables, images):
    del variables
    return jnp.mean(images, axis=(1, 2))

  def __hash__(self):
    return 1

  def __eq__(self, other):
    return isinstance(other, Mean)


EXTRACTOR = Extractor(
  Mean(),
  {},
  lambda images: images.astype(np.float32) / 255,
  FeatureStatistics,
  frechet_distance,
)


def build(name):
  model = settings.build_model(NETWORK, {'name': name})
  images = jnp.zeros((1, SIDE, SIDE, 3))
  return model, model.init(jax.random.key(0), images)


def batches(images, size=8):
  """As the pipeline gives them: the last one filled up."""
  for start in range(0, len(images), size):
    rows = images[start : start + size]
    full = np.resize(rows, (size, *rows.shape[1:]))
    label = np.arange(start, start + size)
    height, width = (np.full(size, x) for x in rows.shape[1:3])
    yield {
      'image': full,
      'mask': label < len(images),
      'label': label,
      'height': height,
      'width': width,
    }


@pytest.fixture(scope='module')
def images():
  return tiny.images(11)[:, :SIDE, :SIDE]


@pytest.fixture(scope='module')
def mesh():
  return make_mesh()


def test_all_pictures_are_coded_in_order(images, mesh):
  model, variables = build('none')
  z, read, labels = generation.read(model, variables, batches(images), mesh)
  np.testing.assert_array_equal(read, images)
  np.testing.assert_array_equal(labels, np.arange(11))
  expected = model.apply(variables, images / np.float32(255)).latent.quantized
  assert z.shape == (11, 1, 1, D)
  np.testing.assert_allclose(z, expected, atol=1e-6)


def test_latents_that_are_drawn_are_drawn(images, mesh):
  model, variables = build('kl')
  one, again = (
    generation.read(model, variables, batches(images), mesh)[0]
    for _ in range(2)
  )
  np.testing.assert_array_equal(one, again)
  means = model.apply(variables, images / np.float32(255)).latent.codes
  # A fresh kl draws with a deviation of e^-3.
  off = (one - means) / np.exp(-3)
  assert 0.6 < off.std() < 1.4
  assert np.abs(off).max() < 5


def test_pictures_are_of_one_size(images, mesh):
  model, variables = build('none')
  larger = np.tile(images, (1, 2, 1, 1))
  both = [*batches(images), *batches(larger)]
  with pytest.raises(InputError, match='of one size: train the model with '):
    generation.read(model, variables, both, mesh)


@pytest.mark.parametrize('devices', [1, 8])
def test_any_number_of_latents_is_decoded(devices, monkeypatch):
  monkeypatch.setattr(inference, 'BATCH', 4)
  model, variables = build('none')
  latents = np.random.default_rng(0).normal(size=(11, 1, 1, D))
  latents = latents.astype(np.float32)
  mesh = make_mesh(devices)
  decoded = inference.decode_latents(model, variables, latents, mesh)
  expected = model.apply(variables, latents, method='decode_latent')
  expected = np.round(255 * np.asarray(to_uint8_range(expected)))
  assert decoded.dtype == np.uint8
  assert decoded.shape == (11, SIDE, SIDE, 3)
  assert np.abs(decoded - expected).max() <= 1


def test_features_are_of_all_images(images, mesh, monkeypatch):
  monkeypatch.setattr(inference, 'BATCH', 4)
  found = generation.features_of(EXTRACTOR, images, mesh)
  np.testing.assert_allclose(found, images.mean((1, 2)) / 255, rtol=1e-5)


def test_a_fit_is_drawn_from(mesh):
  latents = np.random.default_rng(0).normal(size=(50, D)).astype(np.float32)
  prior = vector.parse('pmfs:k=4')
  drawn, seconds, state = generation.fit_and_draw(prior, latents, 20, 3, mesh)
  expected = vector.draw(prior, state, jax.random.key(3), 20)
  np.testing.assert_allclose(drawn, expected, rtol=1e-6)
  assert set(seconds) == {'fit', 'draw'}
  assert min(seconds.values()) > 0


def made(n, seed):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)
  features = images.mean((1, 2)) / 255
  return ImageSet(rng.normal(size=(n, D)), images, features)


@pytest.fixture(scope='module')
def real():
  return generation.compare_real(made(200, 0), made(100, 1), EXTRACTOR)


def test_new_draws_score_as_real_pictures_do(real):
  new = made(100, 2)
  scores = generation.score(new, real)
  off = ImageSet(new.latents + 2, new.images // 2, new.features / 2)
  for name, value in generation.score(off, real)['distances'].items():
    assert value > 3 * scores['distances'][name]
    assert value > 3 * scores['baselines'][name]
  assert abs(scores['memorization']['latents']['copying_z']) < 4
  assert scores['manifold']['coverage'] > 0.7


def test_grey_pictures_are_compared_with_drawn_ones_that_are_hardly_grey():
  def grey(pictures):
    return pictures._replace(images=pictures.images[..., [0, 0, 0]])

  real = generation.compare_real(
    grey(made(20, 0)), grey(made(20, 1)), EXTRACTOR
  )
  drawn = grey(made(20, 2))
  drawn.images[0, 0, 0, 1] ^= 1
  images = generation.score(drawn, real)['memorization']['images']
  assert 0.5 < images['all_train_mean_ratio'] < 2


def test_copies_of_training_pictures_are_found_out(real):
  copies = ImageSet(*(x[:100] for x in real.train))
  scores = generation.score(copies, real)
  assert scores['distances'] == scores['baselines']
  for kind in ('latents', 'images'):
    assert scores['memorization'][kind]['all_train_mean_ratio'] == 0
  assert scores['frechet_to_train'] < scores['distances']['frechet']
  for kind in ('latents', 'images'):
    assert scores['memorization'][kind]['copying_z'] < -3


def test_floors_are_of_training_images_and_of_reconstructions(real):
  off = real.held_out.images // 2
  reconstructed = ImageSet(
    real.held_out.latents, off, real.held_out.features / 2
  )
  floors = generation.floors(reconstructed, real)
  some = ImageSet(*(x[:100] for x in real.train))
  as_drawn = generation.score(some, real)
  assert floors['train'] == {
    'frechet': real.baselines['frechet'],
    'manifold': as_drawn['manifold'],
  }
  as_drawn = generation.score(reconstructed, real)
  assert floors['reconstructions'] == {
    'frechet': as_drawn['distances']['frechet'],
    'frechet_to_train': as_drawn['frechet_to_train'],
    'manifold': as_drawn['manifold'],
    'memorization': as_drawn['memorization']['images'],
  }
  exact = generation.floors(real.held_out, real)['reconstructions']
  assert exact['frechet'] == pytest.approx(0, abs=1e-6)
  assert exact['manifold']['coverage'] == 1
  assert abs(exact['memorization']['copying_z']) < 1e-6


def test_the_nearest_training_image_is_found(real):
  train = real.train.images
  drawn = train[[7, 3]].copy()
  drawn[1, 0, 0, 0] ^= 1
  distances, numbers = generation.nearest_images(drawn, train)
  np.testing.assert_array_equal(numbers, [7, 3])
  np.testing.assert_allclose(distances, [0, 1 / 255], atol=1e-6)


def test_the_table_has_what_real_pictures_score_above_each_model(real):
  rows = [
    {
      'model': model,
      'prior': prior,
      **generation.score(made(100, seed), real),
      'seconds': {'fit': 1.25, 'draw': 0.5},
    }
    for model, prior, seed in (
      ('ae', 'pmfs', 2),
      ('vae', 'gmm', 3),
      ('ae', 'gmm:components=2', 4),
    )
  ]
  head, _, *lines = table(rows).splitlines()
  assert head.startswith('| model | prior | FD to held-out | FD to train |')
  assert len({line.count('|') for line in [head, *lines]}) == 1
  starts = [tuple(line.split('|')[1:3]) for line in lines]
  assert [a.strip() for a, _ in starts] == ['`ae`'] * 3 + ['`vae`'] * 2
  assert starts[0][1] == starts[3][1] == ' real '
  order = sorted(rows[::2], key=lambda row: row['distances']['frechet'])
  assert [b.strip(' `') for _, b in starts[1:3]] == [
    row['prior'] for row in order
  ]
  assert lines[1].endswith('| 1.2 | 0.5 |')


def test_the_overview_has_a_row_a_sampler_and_a_column_a_model():
  def row(model, prior, frechet, near):
    images = {'all_train_mean_ratio': near}
    return {
      'model': model,
      'prior': prior,
      'distances': {'frechet': frechet},
      'memorization': {'images': images},
    }

  rows = [
    row(model, prior, 100 * i + 10 * j, i / 4)
    for i, model in enumerate(('ae', 'vae'), 1)
    for j, prior in enumerate(('pmfs', 'gmm'), 1)
  ]
  head, _, *lines = overview(rows).splitlines()
  assert head == '| prior | `ae` | `vae` |'
  assert lines == [
    '| `pmfs` | 110 (0.25) | 210 (0.50) |',
    '| `gmm` | 120 (0.25) | 220 (0.50) |',
  ]
