"""New images of a workdir, from its files alone."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from lasers_jax.errors import InputError
from lasers_jax.experiment import generate, loading, loop
from lasers_jax.metrics import classifier
from lasers_jax.priors import vector
from lasers_jax.report import grids
from tests import tiny

pytestmark = pytest.mark.slow

N = 24
SPECS = ['pmfs:k=3', 'histogram']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Pictures of two classes: 30 to train on, 10 to test."""
  root, rng = tmp_path_factory.mktemp('classes'), np.random.default_rng(0)
  for split, count in ('train', 15), ('test', 5), ('validation', 1):
    for label in 'ab':
      place = root / split / label
      place.mkdir(parents=True)
      for i in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((16, 16), Image.BICUBIC)
        picture.save(place / f'{i}.png')
  return root


@pytest.fixture(scope='module')
def paths(folder, tmp_path_factory):
  """Two models that took a step."""
  home = tmp_path_factory.mktemp('models')
  for name, terms in ('none', {}), ('kl', {'kl': 1.0}):
    config = tiny.config(folder, steps=1, checkpoint_every=0)
    config['network'] = dict(name='vector', D=4, side=16, channels=4)
    config['bottleneck'] = {'name': name}
    config['loss']['weights'] = {'pixel': 100.0, **terms}
    loop.train_and_evaluate(config, str(home / name))
  return [str(home / name) for name in ('none', 'kl')]


def brief(patch, steps):
  """Shortens the training of classifiers."""
  for name, recipe in classifier.RECIPES.items():
    short = dataclasses.replace(recipe, steps=steps)
    patch.setitem(classifier.RECIPES, name, short)


def sample_all(paths, *args, **options):
  models = [loading.load(path) for path in paths]
  return generate.sample_all(models, *args, **options)


@pytest.fixture(scope='module')
def found(paths, tmp_path_factory):
  output = tmp_path_factory.mktemp('table')
  with pytest.MonkeyPatch.context() as patch:
    brief(patch, 5)
    rows = sample_all(paths, SPECS, N, output=str(output))
  return rows, output


def test_each_model_has_a_row_for_each_sampler(found):
  rows, output = found
  expected = [(m, s) for m in ('none', 'kl') for s in SPECS]
  assert [(row['model'], row['prior']) for row in rows] == expected
  assert json.loads((output / 'table.json').read_text()) == json.loads(
    json.dumps(rows)
  )
  overview, table = (output / 'table.md').read_text().split('\n\n')
  assert len(overview.splitlines()) == 2 + 2
  assert len(table.splitlines()) == 2 + 2 * (1 + 2)
  picture = np.asarray(Image.open(output / 'pictures.png'))
  assert picture.std() > 0


def test_a_prior_that_was_fitted_draws_the_same_images_again(found, paths):
  for path in paths:
    images = generate.draw(loading.load(path), SPECS[0], N)
    cells = [images[i : i + generate.GRID] for i in range(0, N, generate.GRID)]
    kept = Image.open(f'{path}/samples/pmfs-k3.png')
    np.testing.assert_array_equal(grids.grid(cells), np.asarray(kept))
    assert np.any(generate.draw(loading.load(path), SPECS[0], N, 1) != images)
  with pytest.raises(InputError, match='no prior at .*gmm.npz: fit one first'):
    generate.draw(loading.load(paths[0]), 'gmm', 2)
  shutil.copy(f'{paths[0]}/samples/pmfs-k3.npz', f'{paths[1]}/samples/kde.npz')
  with pytest.raises(InputError, match='weights'):
    generate.draw(loading.load(paths[1]), 'kde', 2)


def test_rows_carry_their_protocol(found, folder):
  protocol = found[0][0]['protocol']
  assert protocol['data'] == f'folder:{folder}'
  assert (protocol['split'], protocol['fitted_to']) == ('test', 'train')
  assert [protocol[x] for x in ('train', 'held_out', 'drawn')] == [30, 10, N]
  assert protocol['settings'] == {'k': 3, 'variant': 'bins'}
  assert 'no FID' in protocol['features']['network']
  assert {'seed', 'step', 'weights', 'commit'} < protocol.keys()


def test_states_are_kept_with_the_weights_they_are_of(found, paths):
  row = found[0][0]
  about = {'weights': row['protocol']['weights']}
  path = f'{paths[0]}/samples/pmfs-k3.npz'
  prior, state = vector.load(path, about)
  assert prior == vector.parse('pmfs:k=3')
  assert vector.draw(prior, state, jax.random.key(0), 5).shape == (5, 4)
  with pytest.raises(InputError, match='fitted for another model: weights is'):
    vector.load(path, {'weights': found[0][-1]['protocol']['weights']})


def test_scores_and_pictures_stand_in_the_workdir(found, paths):
  for path, row in zip(np.repeat(paths, 2), found[0], strict=True):
    base = f'{path}/samples/{generate.file_name(row["prior"])}'
    with open(f'{base}.json') as file:
      assert json.load(file) == json.loads(json.dumps(row))
    assert np.asarray(Image.open(f'{base}.png')).std() > 0


def test_one_site_is_drawn_from_training_latents(found):
  """Where an image has one latent, the histogram copies, and that shows."""
  for row in found[0]:
    ratio = row['memorization']['latents']['all_train_mean_ratio']
    assert (ratio < 1e-6) == (row['prior'] == 'histogram')


def test_the_classifier_is_trained_once(monkeypatch, tmp_path):
  trained, train = [], classifier.train_classifier

  def count(*arguments, **settings):
    trained.append(1)
    return train(*arguments, **settings)

  monkeypatch.setattr(classifier, 'cache_folder', lambda: str(tmp_path))
  monkeypatch.setattr(classifier, 'train_classifier', count)
  brief(monkeypatch, 5)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (30, 16, 16, 3), np.uint8)
  for labels, expected in (np.arange(30) % 2, 1), (np.arange(30) % 3, 2):
    for _ in range(2):
      generate.load_extractor(classifier.NAME, images, labels, True)
      assert len(trained) == expected


def test_pictures_that_cannot_be_drawn_lose_no_number(
  found, paths, tmp_path, monkeypatch, log
):
  def fail(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(generate, 'save_png', fail)
  row, images = found[0][0], np.zeros((3, 16, 16, 3), np.uint8)
  broken = {**row, 'prior': 'pmfs:k=4', 'frechet_to_train': np.inf}
  generate.write_prior(paths[0], broken, images)
  generate.write_tables([broken], [images], str(tmp_path))
  for path in f'{paths[0]}/samples/pmfs-k4.json', tmp_path / 'table.json':
    with open(path, encoding='utf-8') as file:
      kept = json.load(file, parse_constant=pytest.fail)
    kept = kept[0] if isinstance(kept, list) else kept
    assert kept['frechet_to_train'] is None
    assert kept['distances'] == row['distances']
  assert (tmp_path / 'table.md').exists()
  assert len(log) == 2
  assert all('No space left' in line for line in log)


@pytest.mark.parametrize(
  'changes, line',
  [
    (dict(n=1), 'n = 1 images cannot be scored: draw 2 or more'),
    (dict(specs=['pmf']), "the prior is 'pmf': did you mean pmfs"),
    (dict(features='psnrr'), "metrics is 'psnrr': did you mean psnr"),
    (dict(features='ms_ssim'), 'features must be a metric of sets'),
    (dict(specs=['gmm:components=40']), '30 latents are too few .* of 40'),
  ],
)
def test_what_cannot_be_is_one_line(paths, changes, line, monkeypatch):
  brief(monkeypatch, 1)
  arguments = {'paths': paths[:1], 'specs': SPECS[:1], 'n': N, **changes}
  with pytest.raises(InputError, match=line):
    sample_all(**arguments)


def test_models_of_other_data_do_not_share_a_table(paths, tiny_run):
  with pytest.raises(InputError, match='must be of the same data'):
    sample_all([*paths, str(tiny_run.workdir)], SPECS[:1], N)


def test_numbers_stand_for_no_discrete_code(tiny_run):
  path = str(tiny_run.workdir)
  with pytest.raises(InputError, match='discrete code, and PMFS .*=histogram'):
    sample_all([path], ['pmfs'], N)
