"""A prior in a folder of its own, without checkpoint and data."""

import json
import shutil
import types

import numpy as np
import pytest

import lasers_jax as lj
from lasers_jax.cli import export
from lasers_jax.experiment import exported


@pytest.fixture(scope='module')
def prior(run):
  return lj.load_prior(run.workdir)


@pytest.fixture(scope='module')
def folder(prior, tmp_path_factory):
  path = tmp_path_factory.mktemp('exported') / 'small-prior'
  prior.export(path, licence='None at all.')
  return path


def test_an_exported_prior_draws_and_writes_what_it_did(prior, folder):
  found = lj.load_prior(folder)
  assert found.weights == prior.weights
  assert (found.step, found.names) == (prior.step, prior.names)
  assert repr(found) == f"<TrainedPrior '{folder}': ar of {found.view.model}>"
  labels = prior.labels(['cats', 'dogs'])
  views = prior.draw(labels, seed=3)
  np.testing.assert_array_equal(found.draw(labels, seed=3), views)
  pytest.importorskip('constriction')
  image = prior.images(views)[0]
  assert found.compress(image) == prior.compress(image)


def test_nothing_of_the_data_goes_along(folder, run):
  kept = json.loads((folder / 'data.json').read_text())
  assert set(kept) <= {'classes', 'planes'}
  files = {x.name for x in folder.iterdir()}
  assert files == {'config.json', 'data.json', 'README.md', exported.WEIGHTS}
  card = (folder / 'README.md').read_text()
  for text in (
    'small-prior',
    'cats, dogs',
    'None at all.',
    f'{run.config["steps"]}',
  ):
    assert text in card


def test_half_the_bytes_are_another_prior(prior, folder, tmp_path):
  prior.export(tmp_path / 'half', half=True)
  sizes = [
    (x / exported.WEIGHTS).stat().st_size for x in (tmp_path / 'half', folder)
  ]
  assert sizes[0] < 0.6 * sizes[1]
  found = lj.load_prior(tmp_path / 'half')
  assert found.weights != prior.weights
  assert found.draw(found.balanced_labels(2)).shape[0] == 2


def test_an_export_is_replaced_and_other_folders_are_refused(prior, tmp_path):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'notes').write_text('keep')
  with pytest.raises(lj.InputError, match='name another folder'):
    prior.export(tmp_path / 'mine')
  for half in True, False:
    prior.export(tmp_path / 'twice', half=half)
  assert lj.load_prior(tmp_path / 'twice').weights == prior.weights


def test_what_is_wrong_is_one_line(folder, run, tmp_path):
  with pytest.raises(lj.InputError, match='is a prior and no model'):
    lj.load(folder)
  with pytest.raises(lj.InputError, match='has no checkpoints: leave out'):
    lj.load_prior(folder, checkpoint=2)
  broken = shutil.copytree(folder, tmp_path / 'broken')
  data = (broken / exported.WEIGHTS).read_bytes()
  (broken / exported.WEIGHTS).write_bytes(data[:-4] + b'abcd')
  with pytest.raises(lj.InputError, match='is damaged'):
    lj.load_prior(broken)
  with pytest.raises(lj.InputError, match='is no workdir of a run'):
    lj.load_prior(tmp_path / 'nothing')
  config = json.loads((folder / 'config.json').read_text())
  other = shutil.copytree(folder, tmp_path / 'other')
  config['prior']['width'] *= 2
  (other / 'config.json').write_text(json.dumps(config))
  with pytest.raises(lj.InputError, match='is of another model'):
    lj.load_prior(other)


def test_the_program_exports_a_prior(run, tmp_path, monkeypatch, capsys):
  given = types.SimpleNamespace(
    prior=str(run.workdir),
    checkpoint=2,
    output=str(tmp_path / 'out'),
    format=None,
  )
  monkeypatch.setattr(export.flags, 'FLAGS', given)
  monkeypatch.setattr(export.program, 'set_up_jax', lambda: None)
  export.main()
  assert 'step 2, ' in capsys.readouterr().out
  assert lj.load_prior(given.output).step == 2
  given.format = 'torch'
  with pytest.raises(lj.InputError, match='--format=torch is of models'):
    export.main()
