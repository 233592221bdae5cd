"""Runs that restore images: trained, gone on with, measured, used."""

import json
import shutil

import jax
import numpy as np
import pytest

from lasers_jax.core import sharding
from lasers_jax.degradations import in_evaluation
from lasers_jax.errors import InputError
from lasers_jax.evaluation import degraded, protocol
from lasers_jax.experiment import evaluate, loop
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.settings import from_config
from tests import tiny

pytestmark = pytest.mark.slow


def train(pictures, workdir, **section):
  config = {**tiny.config(pictures), 'degradation': section}
  return tiny.on_host(loop.train_and_evaluate(config, str(workdir)))


@pytest.fixture(scope='module')
def holes(pictures, tmp_path_factory):
  """A run that fills holes: its workdir and its last state."""
  workdir = tmp_path_factory.mktemp('holes') / 'run'
  return workdir, train(pictures, workdir, name='inpaint', mask='mixed')


@pytest.fixture(scope='module')
def model(holes):
  return load(holes[0])


@pytest.fixture(scope='module')
def measured(model, tmp_path_factory):
  folder = tmp_path_factory.mktemp('measured')
  results = evaluate.evaluate(model, output=str(folder))
  return folder, results


@pytest.fixture(scope='module')
def truths(model):
  source = model.open_split('test')
  return np.stack(model.experiment.data.first_images(source, tiny.TEST))


def damage(model, images):
  found = [
    in_evaluation(model.experiment.degradation, x, i)
    for i, x in enumerate(images)
  ]
  return [np.stack(x) for x in zip(*found, strict=True)]


def test_going_on_gives_the_run_that_never_stopped(holes, pictures, tmp_path):
  copy = shutil.copytree(holes[0], tmp_path / 'run')
  shutil.rmtree(copy / 'checkpoints' / '6')
  state = train(pictures, copy, name='inpaint', mask='mixed')
  tiny.assert_identical(state, holes[1])


@pytest.mark.parametrize(('batch_size', 'devices'), [(5, 1), (8, 8)])
def test_batches_and_devices_meet_the_same_damage(
  model, measured, batch_size, devices
):
  data, run = model.experiment.data, model.experiment
  batches = list(
    data.evaluation_batches(
      model.open_split('test'), batch_size, run.pad_multiple
    )
  )
  mesh = sharding.make_mesh(data=devices)
  results = protocol.evaluate(
    run.model,
    jax.device_get(model.variables),
    batches,
    mesh,
    degradation=run.degradation,
  )
  expected = measured[1]
  for name in ('psnr', 'psnr_hole', 'hole'):
    for key, value in expected[name].items():
      np.testing.assert_allclose(results[name][key], value, rtol=1e-5)
  found = degraded.damage(run.degradation, batches[0])
  alone = in_evaluation(run.degradation, batches[0]['image'][3], 3)
  np.testing.assert_array_equal(found['inputs'][3], alone.inputs)


def test_results_name_the_degradation_and_its_protocol(measured):
  folder, results = measured
  stored = json.loads((folder / 'results.json').read_text())
  assert stored['protocol']['degradation']['mask'] == 'mixed'
  assert stored['protocol']['restoration'].startswith('code only')
  assert 'in holes alone' in stored['protocol']['psnr_hole']
  for group in 'input', 'clean', 'pasted':
    assert stored[group]['psnr']['count'] == tiny.TEST
  assert 0.05 < stored['hole']['mean'] < 0.6
  assert results['pasted']['psnr_hole'] == results['psnr_hole']
  assert results['pasted']['psnr']['mean'] > results['psnr']['mean']
  assert (folder / 'results.png').exists()
  assert (folder / 'report.html').exists()


def test_numbers_are_those_of_restored_images(model, measured, truths):
  inputs, _, known = damage(model, truths)
  restored = model.restore(inputs[..., :3].clip(0, 1), inputs[..., 3] > 0)
  error = ((restored / 255 - truths / 255) ** 2).mean(-1)
  by_image = [
    x[k[..., 0] == 0].mean() for x, k in zip(error, known, strict=True)
  ]
  np.testing.assert_allclose(
    measured[1]['psnr_hole']['mean'],
    np.mean(-10 * np.log10(by_image)),
    rtol=1e-4,
  )
  clean = model.reconstruct(truths)
  error = ((clean / 255 - truths / 255) ** 2).mean((1, 2, 3))
  np.testing.assert_allclose(
    measured[1]['clean']['psnr']['mean'],
    np.mean(-10 * np.log10(error)),
    rtol=1e-4,
  )


def test_baselines_stand_beside(measured):
  found = measured[1]['baselines']
  assert set(found) == {'input', 'mean', 'telea', 'navier_stokes', 'biharmonic'}
  np.testing.assert_allclose(
    found['input']['psnr']['mean'], measured[1]['input']['psnr']['mean'], 1e-6
  )
  for name in 'mean', 'biharmonic':
    assert found[name]['psnr_hole']['count'] == tiny.TEST
  # They paste what is known.
  assert found['mean']['psnr']['mean'] > found['mean']['psnr_hole']['mean']


def test_what_cannot_be_restored_is_one_line(model, tiny_run, truths):
  with pytest.raises(InputError, match='restores nothing: it was trained'):
    load(tiny_run.workdir).restore(truths)
  with pytest.raises(InputError, match='needs a mask: bool'):
    model.restore(truths)
  with pytest.raises(InputError, match='mask is 8x8 and the image 16x16'):
    model.restore(truths, np.zeros((8, 8), bool))
  with pytest.raises(InputError, match='2 masks for 10 images'):
    model.restore(truths, np.zeros((2, 16, 16), bool))
  with pytest.raises(InputError, match='mask must be bool'):
    model.restore(truths, np.zeros((16, 16), int))
  said = "trained for degradation inpaint by protocol 'code', not inpaint by"
  with pytest.raises(InputError, match=said):
    model.with_config(degradation={'protocol': 'input'})
  changed = model.with_config(degradation={'mask': 'centre'})
  assert changed.experiment.degradation.mask == 'centre'


def test_a_run_goes_on_with_its_own_degradation_alone(holes, pictures):
  said = "another config: degradation.mask is 'mixed' there and 'centre' here"
  with pytest.raises(InputError, match=said):
    train(pictures, holes[0], name='inpaint', mask='centre')


@pytest.mark.parametrize(
  ('section', 'said'),
  [
    ({'name': 'superes'}, "name is 'superes': did you mean superres?"),
    ({'name': 'superres', 'scale': 3}, 'scale=3 does not divide .* 16x16'),
    ({'name': 'superres', 'sigma': 3}, 'nothing reads .* degradation.sigma'),
    ({'name': 'denoise', 'sigma': (-1.0,)}, r'sigma\[0\] is -1.0: it must be'),
  ],
)
def test_sections_that_cannot_be_used(section, said):
  with pytest.raises(InputError, match=said):
    from_config({**tiny.config(''), 'degradation': section})
