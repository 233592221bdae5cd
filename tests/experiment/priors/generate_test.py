"""Draws of a prior, scored, with pictures, a report and completions."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from PIL import Image

from lasers_jax.core import sharding
from lasers_jax.errors import InputError
from lasers_jax.experiment.priors import generate
from lasers_jax.experiment.priors.model import load_prior
from lasers_jax.metrics import classifier
from lasers_jax.priors.maps.masked import Masked, MaskedDrawing
from lasers_jax.report import generation_table, prior_figures
from lasers_jax.training import prior_step
from tests import tiny

N = 12


@pytest.fixture(scope='module')
def prior(run):
  return load_prior(run.workdir)


@pytest.fixture(scope='module')
def output(tmp_path_factory):
  return tmp_path_factory.mktemp('drawn')


@pytest.fixture(scope='module')
def row(prior, output):
  with pytest.MonkeyPatch.context() as patch:
    for name, recipe in classifier.RECIPES.items():
      short = dataclasses.replace(recipe, steps=3)
      patch.setitem(classifier.RECIPES, name, short)
    return generate.sample_prior(prior, N, 1, classifier.NAME, str(output))


def test_a_row_has_bits_floors_classes_and_its_protocol(prior, row):
  measured = row['bits_per_pixel']
  assert measured['fixed_length'] == prior.view.model.experiment.bits_per_pixel
  bits = measured['prior']
  assert bits['exact'] is True
  paid = 1 / tiny.SIDE**2  # of two classes
  assert bits['with_class'] == pytest.approx(bits['given_class']['mean'] + paid)
  assert set(row['floors']) == {'train', 'reconstructions'}
  drawn = row['class_accuracy']['draws']
  assert drawn['asked'] == [N // 2, N // 2]
  protocol = row['protocol']
  assert (protocol['drawn'], protocol['seed']) == (N, 1)
  assert protocol['prior_weights'] == prior.weights
  assert protocol['settings']['guidance'] == 1.0
  assert 'ar' in generation_table.table([row])


def test_files_are_written_where_they_are_to_go(row, output, run):
  folder = output / 'samples'
  assert {x.name for x in output.iterdir()} == {'samples', 'latents'}
  assert not (run.workdir / 'samples').exists()
  kept = json.loads((folder / 'ar.json').read_text())
  assert kept == json.loads(json.dumps(row))
  page = (folder / 'ar.html').read_text()
  for title in 'Draws by class', 'Bits by site', 'Half an image completed':
    assert title in page
  kinds = 'classes', 'guidance', 'nearest', 'bits', 'completions'
  pictures = {x.name for x in folder.glob('*.png')}
  assert pictures == {f'ar-{kind}.png' for kind in kinds}
  for name in pictures:
    with Image.open(folder / name) as picture:
      assert np.asarray(picture).std() > 0


def test_images_are_squares_though_the_model_was_measured_on_whole_ones(
  prior, run
):
  data = {'name': 'photos', 'resize': 32, 'whole': True}
  whole = prior.view.model.with_config(data=data)
  model = load_prior(run.workdir, model=whole).view.model
  source = model.open_split(model.experiment.data.test)
  images = model.experiment.data.first_images(source, 2)
  assert [x.shape for x in images] == [(tiny.SIDE, tiny.SIDE, 3)] * 2


def test_a_masked_prior_shows_an_image_as_it_is_drawn(prior, monkeypatch):
  monkeypatch.setattr(generate, 'complete', lambda *_: None)
  monkeypatch.setattr(generate, 'BOUNDS', 16)
  fields = {x: getattr(prior.prior, x) for x in ('sites', 'layout', 'D')}
  model = Masked(classes=2, width=16, layers=1, heads=2, **fields)
  model = model.clone(label_dropout=0.0)
  images = tiny.images(8)
  views = prior.view.of(images)
  initial = jax.jit(prior_step._initial, static_argnums=0)
  masked = dataclasses.replace(
    prior,
    prior=model,
    variables=initial(model, views[:1], 0),
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    drawing=MaskedDrawing(steps=12),
  )
  real = types.SimpleNamespace(images=images)
  subject = types.SimpleNamespace(
    real=types.SimpleNamespace(train=real, held_out=real)
  )
  test = {'view': views, 'label': np.zeros(8, np.int32)}
  found = generate.Found(images, subject, test)
  figures = generate.pictures(masked, found, seed=0)
  assert list(figures) == [
    'classes', 'nearest', 'bits', 'unmasking', 'completions'
  ]  # fmt: skip
  # Of 8 of 12 steps, less and less is grey; the last one is the draw.
  scale = 6 * tiny.SIDE
  strip = figures['unmasking'][4 : 4 + scale, -8 * (scale + 4) :]
  steps = [strip[:, i * (scale + 4) :][:, :scale] for i in range(8)]
  grey = [np.all(x == prior_figures.UNKNOWN, axis=-1).mean() for x in steps]
  assert np.all(np.diff(grey) < 0)
  draw = masked.images(masked.draw(masked.balanced_labels(1)))[0]
  np.testing.assert_array_equal(steps[-1], draw.repeat(6, 0).repeat(6, 1))
  # A sample of the bound has bits of some sites alone, their mean of all.
  assert np.all(generate.bits_of_sites(masked, test) > 0)


def test_settings_of_drawing_name_the_files(prior):
  changed = prior.with_words(['guidance=2', 'top_k=3'])
  assert generate.file_name(changed) == 'ar-guidance2.0-top_k3'
  assert changed.drawing.top_k == 3


@pytest.mark.parametrize(
  'word, said',
  [
    ('guidence=2', 'did you mean guidance'),
    ('guidance', 'a setting of drawing'),
    ('top_k=-1', 'top_k'),
    ('top_p=x', "top_p is 'x'"),
    ('guidance=-1', 'guidance'),
  ],
)
def test_bad_settings_of_drawing_are_one_line(prior, word, said):
  with pytest.raises(InputError, match=said) as error:
    prior.with_words([word])
  assert '\n' not in str(error.value)


def test_completions_of_files(prior, tmp_path):
  files = []
  for i, image in enumerate(tiny.images(2)):
    files.append(str(tmp_path / f'{i}.png'))
    Image.fromarray(image).save(files[-1])
  output = tmp_path / 'out.png'
  classes = ['cats', 'dogs']
  generate.complete_files(prior, files, 'top', classes, 0, str(output))
  with Image.open(output) as figure:
    assert figure.size[0] > 2 * tiny.SIDE
  with pytest.raises(InputError, match='1 classes for 2 images'):
    generate.complete_files(prior, files, 'top', ['cats'], 0, str(output))
  (tmp_path / 'bad.png').write_bytes(b'no')
  bad = [str(tmp_path / 'bad.png')]
  with pytest.raises(InputError, match='no image'):
    generate.complete_files(prior, bad, 'top', [], 0, str(output))


def test_a_prior_of_latents_cannot_complete(prior, tmp_path):
  view = dataclasses.replace(prior.view, name='z')
  of_latents = dataclasses.replace(prior, view=view)
  with pytest.raises(InputError, match='by a prior ar or masked'):
    generate.complete_files(of_latents, [], 'left', [], 0, 'x.png')
