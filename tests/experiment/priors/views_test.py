"""Views of images, their files, and the order of their planes."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from lasers_jax.core import sharding
from lasers_jax.experiment import settings as model_settings
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.priors import latents, loop, settings
from lasers_jax.experiment.priors import model as prior_model
from lasers_jax.experiment.priors.views import View
from lasers_jax.training import workdir
from tests import tiny
from tests.experiment.priors.conftest import config


@pytest.fixture(scope='module')
def integers(pictures, tmp_path_factory):
  """A model of integers, as it is drawn."""
  given = tiny.config(pictures)
  given['bottleneck'] = {'name': 'entropy', 'step': 0.05}
  given['loss']['weights'] = {'pixel': 1.0, 'rate': 1.0}
  experiment = model_settings.from_config(given)
  image = np.zeros((1, tiny.SIDE, tiny.SIDE, 3), np.float32)
  variables = jax.jit(experiment.model.init)(jax.random.key(0), image)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  path = str(
    tmp_path_factory.mktemp('integers')
  )  # of what is known of pictures
  return TrainedModel(experiment, variables, given, mesh, 0, path)


def open_data(model, path, **changes):
  given = loop.with_stage_one(config(**changes), model)
  found = loop.open_data(settings.from_config(given), model, str(path))
  run = workdir.Run(given, settings.with_defaults, found.fingerprints)
  with workdir.lock_workdir(str(path), run):
    return found


def assert_arranged(found, stored, planes):
  """Both are of the same codes, one of them by other planes."""
  np.testing.assert_array_equal(found.first, stored.first[..., planes])
  for one, other in (
    (found.validation, stored.validation),
    (found.batches.batch(1), stored.batches.batch(1)),
  ):
    np.testing.assert_array_equal(one['view'], other['view'][..., planes])


def test_channels_of_the_largest_variance_come_first(integers, tmp_path):
  found = open_data(integers, tmp_path / 'run')
  stored = open_data(integers, tmp_path / 'other', order='atoms')
  assert stored.view.planes is None
  planes = found.view.planes
  spread = stored.first.astype(float).var(axis=(0, 1, 2))
  assert list(planes) == np.argsort(-spread).tolist() != [0, 1, 2, 3]
  assert_arranged(found, stored, planes)
  # The same images, of as many bits: a prior has one size for all channels.
  np.testing.assert_array_equal(
    found.view.images(found.first[:2]), stored.view.images(stored.first[:2])
  )
  images = tiny.images(2)
  np.testing.assert_array_equal(
    found.view.of(images), stored.view.of(images)[..., planes]
  )
  assert found.view.events.layout.sizes == stored.view.events.layout.sizes


def test_a_prior_keeps_its_planes(integers, tmp_path, monkeypatch):
  path = tmp_path / 'run'
  first = open_data(integers, path)
  known = json.loads((path / 'data.json').read_text())
  assert known['planes'] == {'order': list(first.view.planes)}
  # A run that goes on, even where another order would be found now.
  other = first.view.planes[::-1]
  known['planes'] = {'order': list(other)}
  (path / 'data.json').write_text(json.dumps(known))
  again = open_data(integers, path)
  assert again.view.planes == other
  stored = open_data(integers, tmp_path / 'other', order='atoms')
  assert_arranged(again, stored, other)
  monkeypatch.setattr(prior_model, '_restore', lambda *_: ({}, 0))
  assert prior_model.load_prior(path, model=integers).view.planes == other
  # One from before there was an order has the planes of the code.
  del known['planes']
  (path / 'data.json').write_text(json.dumps(known))
  assert prior_model.load_prior(path, model=integers).view.planes is None
  old = open_data(integers, path)
  assert old.view.planes is None
  assert_arranged(old, stored, range(4))
  assert 'planes' not in json.loads((path / 'data.json').read_text())


def test_codes_that_are_due_have_the_order_of_the_first(integers, tmp_path):
  found = open_data(integers, tmp_path / 'run', cache='none')
  stored = open_data(integers, tmp_path / 'other', cache='none', order='atoms')
  assert_arranged(found, stored, found.view.planes)
  assert found.view.events.by_variance(found.first) == found.view.planes


@pytest.mark.parametrize('name', ['codes', 'z', 'quantized'])
def test_a_view_leads_back_to_the_reconstruction(integers, name):
  view = View(integers, name, tiny.SIDE)
  images = tiny.images(3)
  found = view.images(view.of(images))
  expected = integers.reconstruct(images)
  # Scaled once, and rounded alike: of z the bottleneck is the decoder's part.
  np.testing.assert_allclose(found.astype(int), expected, atol=1)
  assert np.mean(found != expected) < 1e-3
  np.testing.assert_array_equal(
    view.quantized(view.of(images)), integers.latents(images)
  )


def test_a_mirror_image_is_coded_itself(integers, tmp_path):
  view = View(integers, 'codes', tiny.SIDE)
  source = integers.open_split('train')
  rows = latents.code_split(view, source, str(tmp_path), mirrored=True)
  numbers = range(len(source))
  batches = latents.images_of(integers, source, numbers, tiny.SIDE)
  images, labels = map(np.concatenate, zip(*batches, strict=True))
  np.testing.assert_array_equal(rows['label'], np.repeat(labels, 2))
  np.testing.assert_array_equal(rows['view'][::2], view.of(images))
  mirrored = view.of(images[:, :, ::-1])
  np.testing.assert_array_equal(rows['view'][1::2], mirrored)
  assert np.any(mirrored != view.of(images)[:, :, ::-1])


def test_codes_are_kept_by_all_that_they_depend_on(integers):
  view, train = View(integers, 'codes', tiny.SIDE), integers.open_split('train')
  drawn = jax.tree.map(lambda x: x + 1, integers.variables)
  other = dataclasses.replace(integers, variables=drawn)
  views = [
    view,
    dataclasses.replace(view, model=other),
    dataclasses.replace(view, name='z'),
    dataclasses.replace(view, order='atoms'),
    dataclasses.replace(view, side=8),
  ]
  names = [latents._name(x, train, False) for x in views]
  names.append(latents._name(view, train, True))
  names.append(latents._name(view, integers.open_split('test'), False))
  assert len(set(names)) == len(names) == 7
  assert (
    latents._name(View(integers, 'codes', tiny.SIDE), train, False) in names
  )
