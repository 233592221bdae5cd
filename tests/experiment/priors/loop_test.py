"""Runs of priors: exact resume, any mesh, the cache, and bad input."""

import json
import shutil

import jax
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.priors import loop
from lasers_jax.experiment.priors.model import load_prior
from lasers_jax.priors.maps.base import Known
from tests import tiny
from tests.experiment.priors.conftest import config


def test_a_run_logs_bits_and_draws_pictures(run):
  lines = tiny.metrics(run.workdir)
  assert [x['step'] for x in lines if 'loss' in x] == [1, 2, 3, 4]
  (validation,) = (x for x in lines if 'validation_bits_per_pixel' in x)
  # The first prediction is even over all that is legal: no more than 9 bits
  # for two of 16 atoms, and 16 for their levels.
  assert 0 < validation['validation_bits_per_site'] < 25
  assert (run.workdir / 'pictures' / '4.png').is_file()


def test_stopping_and_resuming_changes_no_bit(model, run, tmp_path):
  path = str(tmp_path / 'run')
  loop.train_prior(config(steps=2), str(model), path)
  state = loop.train_prior(config(), str(model), path)
  tiny.assert_identical(tiny.on_host(state), run.state)


@pytest.mark.parametrize(
  'mesh', [{'data': 1}, {'data': 2, 'fsdp': 2, 'model': 2}]
)
def test_any_mesh_gives_the_same_numbers(model, run, tmp_path, mesh):
  state = loop.train_prior(config(mesh=mesh), str(model), str(tmp_path / 'run'))
  kernel = state.params['head']['outs_0']['kernel']  # [16, 4096]
  (shape,) = {x.data.shape for x in kernel.addressable_shards}
  ways = mesh.get('fsdp', 1) * mesh.get('model', 1)
  assert np.prod(shape) * ways == kernel.size
  found = tiny.on_host(state)
  assert found.keys() == run.state.keys()
  for name, value in found.items():
    np.testing.assert_allclose(
      value, run.state[name], rtol=1e-3, atol=1e-5, err_msg=name
    )


def test_codes_in_the_step_are_those_of_the_cache(model, run, tmp_path):
  given = config(cache='none', steps=2)
  state = loop.train_prior(given, str(model), str(tmp_path / 'run'))
  assert int(state.step) == 2
  coded = (tmp_path / 'run' / 'latents').glob('*/*.npz')
  assert len(list(coded)) == 1  # of the validation split


@pytest.mark.parametrize(
  'changes',
  [
    {'prior__name': 'masked', 'drawing__steps': 3},
    {'prior__name': 'flow', 'view': 'z', 'drawing__steps': 2},
    {'prior__name': 'flow', 'view': 'quantized', 'drawing__steps': 2},
  ],
)
def test_every_prior_trains_resumes_and_draws(model, tmp_path, changes):
  whole, halves = tmp_path / 'whole', str(tmp_path / 'halves')
  drawn = config(**changes, evaluate_every=4)
  state = loop.train_prior(drawn, str(model), str(whole))
  loop.train_prior(config(**changes, steps=2), str(model), halves)
  again = loop.train_prior(config(**changes), str(model), halves)
  tiny.assert_identical(tiny.on_host(again), tiny.on_host(state))
  assert (whole / 'pictures' / '4.png').is_file()
  prior = load_prior(whole)
  images = prior.images(prior.draw(prior.balanced_labels(2)))
  assert images.shape == (2, tiny.SIDE, tiny.SIDE, 3)


def test_draws_come_from_averaged_weights(run, model):
  prior = load_prior(run.workdir)
  for path, value in jax.tree_util.tree_leaves_with_path(
    prior.variables['params']
  ):
    name = jax.tree_util.keystr(path)
    np.testing.assert_array_equal(value, run.state[f'.ema_params{name}'])


def test_draw_i_is_a_function_of_the_seed_and_i(run):
  prior = load_prior(run.workdir)
  labels = prior.balanced_labels(9)
  views = prior.draw(labels, seed=3)
  again = prior.draw(labels[4:6], seed=3, indices=np.array([4, 5]))
  np.testing.assert_array_equal(views[4:6], again)
  assert (views[0] != views[2]).any()  # of one class
  images = prior.images(views[:2])
  assert images.shape == (2, tiny.SIDE, tiny.SIDE, 3)
  assert images.dtype == np.uint8


def test_what_is_given_of_an_image_stays(run):
  prior = load_prior(run.workdir)
  images = tiny.images(2)
  given = np.zeros((tiny.SIDE, tiny.SIDE), bool)
  given[:, : tiny.SIDE // 2] = True
  found = prior.complete(images, given, prior.labels(['cats', '1']))
  assert found.shape == images.shape
  # The same draw, as a view: the left half of the sites is what was seen.
  seen = prior.view.of(np.where(given[..., None], images, np.uint8(128)))
  sites = np.zeros(seen.shape[:3], bool)
  sites[:, :, : seen.shape[2] // 2] = True
  view = prior.draw(prior.labels(['cats', '1']), known=Known(seen, sites))
  np.testing.assert_array_equal(view[sites], seen[sites])
  assert (view[~sites] != seen[~sites]).any()
  np.testing.assert_array_equal(prior.images(view), found)


@pytest.mark.parametrize(
  'changes, said',
  [
    ({'view': 'z'}, "view='z' is not for prior.name='ar'"),
    ({'order': 'size'}, 'order must be one of'),
    ({'prior__name': 'gpt'}, 'prior.name'),
    ({'prior__wdith': 3}, 'did you mean prior.width'),
    ({'prior__width': 18}, 'must be a multiple of 4 × heads'),
    ({'stage_one': {'weights': '0' * 16}}, 'over the model with weights 0000'),
    ({'batch_size': 7}, 'batch_size=7 cannot be split 8 ways'),
  ],
)
def test_bad_settings_are_one_line(model, tmp_path, changes, said):
  with pytest.raises(InputError, match=said) as error:
    loop.train_prior(config(**changes), str(model), str(tmp_path / 'run'))
  assert '\n' not in str(error.value)


def test_a_cache_of_other_codes_is_refused(model, run, tmp_path):
  copy = shutil.copytree(run.workdir, tmp_path / 'run')
  for file in (copy / 'latents').glob('*/*.npz'):
    with np.load(file) as arrays:
      found = dict(arrays)
    found['view'] = found['view'][:, ::-1]
    np.savez(file, **found)
  with pytest.raises(InputError, match='codes of another model or of other'):
    loop.train_prior(config(steps=5), str(model), str(copy))


def test_a_model_of_other_weights_is_refused(run, model, tmp_path):
  copy = shutil.copytree(run.workdir, tmp_path / 'run')
  found = json.loads((copy / 'config.json').read_text())
  found['stage_one']['weights'] = 'f' * 16
  (copy / 'config.json').write_text(json.dumps(found))
  with pytest.raises(InputError, match='prior over a model with weights ffff'):
    load_prior(copy)


@pytest.mark.parametrize('word', ['horses', '2', ''])
def test_a_class_that_is_not_there_is_one_line(run, word):
  with pytest.raises(InputError, match='the classes are cats, dogs'):
    load_prior(run.workdir).labels([word])


@pytest.mark.parametrize('labels', [[2, 3], [-1], [0.0], ['cats'], 0])
def test_labels_that_are_no_classes_are_one_line(run, labels):
  with pytest.raises(InputError, match='from 0 to 2, where 2 is no class'):
    load_prior(run.workdir).draw(labels)


def test_a_label_each_is_needed(run):
  given = np.ones((tiny.SIDE, tiny.SIDE), bool)
  with pytest.raises(InputError, match='1 labels for 2 images'):
    load_prior(run.workdir).complete(tiny.images(2), given, np.array([0]))


def test_models_and_priors_are_told_apart(run, model, tmp_path):
  with pytest.raises(InputError) as error:
    load(run.workdir)
  assert str(error.value) == (
    f'{run.workdir} is a prior and no model: name the model that it is of, '
    f'{model}; `load_prior` and --prior read priors'
  )
  with pytest.raises(InputError, match='is a prior and no model'):
    loop.train_prior(config(), str(run.workdir), str(tmp_path / 'run'))
  for act in (
    lambda: load_prior(model),
    lambda: loop.train_prior(config(), str(model), str(model)),
  ):
    with pytest.raises(InputError) as error:
      act()
    assert str(error.value) == (
      f'{model} is a model and no prior: train one over it, in a workdir of '
      'its own (lasers-jax prior --model)'
    )
  assert not (model / 'latents').exists()


def test_guidance_needs_labels(tiny_run, tmp_path):
  given = config(drawing__guidance=2.0)
  with pytest.raises(InputError, match='needs a prior of labelled images'):
    loop.train_prior(given, str(tiny_run.workdir), str(tmp_path / 'run'))
