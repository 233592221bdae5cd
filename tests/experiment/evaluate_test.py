"""Evaluation of a workdir, from its files alone."""

import importlib
import json
import sys

import numpy as np
import pytest
from PIL import Image

from lasers_jax.errors import InputError
from lasers_jax.evaluation import protocol
from lasers_jax.experiment import evaluate, loading
from lasers_jax.training import workdir
from tests import tiny


@pytest.fixture(scope='module')
def results(tiny_run, tmp_path_factory):
  folder = tmp_path_factory.mktemp('results')
  return evaluate.evaluate(str(tiny_run.workdir), output=str(folder)), folder


def assert_close(a, b):
  for name in 'psnr', 'ssim':
    np.testing.assert_allclose(a[name]['mean'], b[name]['mean'], rtol=1e-6)
  for name in 'usage', 'perplexity', 'bits_per_pixel':
    assert a[name] == b[name]


def test_the_results_carry_their_protocol(results, pictures):
  returned, folder = results
  stored = json.loads((folder / 'results.json').read_text())
  assert stored == json.loads(json.dumps(returned))
  protocol = stored['protocol']
  assert protocol['data'] == f'folder:{pictures}'
  assert protocol['split'] == 'test'
  assert protocol['count'] == stored['psnr']['count'] == tiny.TEST
  assert protocol['step'] == 6
  assert protocol['crop'] == 'centre 16x16'
  assert protocol['bottleneck']['S'] == 2
  assert protocol['colour'] == 'RGB in [0, 1]'
  assert protocol['parameters']['bottleneck'] == 16 * 4
  assert {'psnr', 'ssim', 'interval', 'weights', 'commit'} < protocol.keys()
  assert stored['bits_per_pixel']['fixed_length'] == (7 + 2 * 8) / 4


def test_there_is_a_picture(results):
  picture = np.asarray(Image.open(results[1] / 'results.png'))
  assert picture.shape[2] == 3
  assert picture.std() > 0


def test_validation_in_training_measured_the_same(tiny_run, results):
  last = tiny.metrics(tiny_run.workdir)[-1]
  for name in 'psnr', 'ssim':
    np.testing.assert_allclose(
      last[f'validation/{name}'], results[0][name]['mean'], rtol=1e-6
    )


def test_any_batch_gives_the_same_numbers(tiny_run, results):
  other = evaluate.evaluate(  # 5 divides 10, and 8 does not.
    loading.load(tiny_run.workdir).with_config(evaluation={'batch_size': 5})
  )
  assert_close(other, results[0])


def test_a_chosen_step(tiny_run, results, tmp_path):
  other = evaluate.evaluate(
    loading.load(tiny_run.workdir, 4), output=str(tmp_path)
  )
  assert other['protocol']['step'] == 4
  assert other['protocol']['weights'] != results[0]['protocol']['weights']
  assert other['psnr']['mean'] != results[0]['psnr']['mean']


def test_other_sparsity(tiny_run, results):
  psnr = {2: results[0]['psnr']['mean']}
  # Less and more than in training; log2 of C(16, s), rounded up.
  for s, of_atoms in (1, 4), (3, 10):
    other = evaluate.evaluate(loading.load(tiny_run.workdir).with_(S=s))
    assert other['bits_per_pixel']['fixed_length'] == (of_atoms + s * 8) / 4
    assert other['protocol']['bottleneck']['S'] == s
    assert other['protocol']['weights'] == results[0]['protocol']['weights']
    psnr[s] = other['psnr']['mean']
  assert len(set(psnr.values())) == 3


def test_other_data(tiny_run, tmp_path):
  folder = tmp_path / 'pictures'
  folder.mkdir()
  for i, image in enumerate(tiny.images(3)):
    Image.fromarray(image).save(folder / f'{i}.png')
  other = evaluate.evaluate(str(tiny_run.workdir), f'folder:{folder}', 'all')
  assert other['protocol']['data'] == f'folder:{folder}'
  assert other['protocol']['split'] == 'all'
  assert other['psnr']['count'] == 3


def test_no_workdir_is_an_error(tmp_path):
  with pytest.raises(
    InputError, match='is no workdir of a run and no exported'
  ):
    evaluate.evaluate(str(tmp_path / 'nothing'))


def test_no_checkpoint_is_an_error(tiny_run, tmp_path):
  workdir.write_config(str(tmp_path), tiny_run.config)
  with pytest.raises(InputError, match='has no checkpoint yet'):
    evaluate.evaluate(str(tmp_path))


def test_a_step_that_is_not_there_is_an_error(tiny_run):
  with pytest.raises(InputError, match=r'no checkpoint of step 5 .*\[4, 6\]'):
    loading.load(tiny_run.workdir, 5)


def test_too_many_atoms_are_an_error(tiny_run):
  with pytest.raises(InputError, match='S must be from 1 to K = 16.* S = 17'):
    loading.load(tiny_run.workdir).with_(S=17)


def test_the_command_on_one_device(tiny_run, results, tmp_path):
  process = tiny.start(
    'evaluate.py',
    f'--workdir={tiny_run.workdir}',
    f'--output={tmp_path}',
    devices=1,
  )
  out, log = process.communicate(timeout=240)
  assert process.returncode == 0, log
  (line,) = out.splitlines()
  assert line.startswith('PSNR ')
  assert line.endswith(', 10 images')
  stored = json.loads((tmp_path / 'results.json').read_text())
  assert_close(stored, json.loads(json.dumps(results[0])))


def test_other_pictures_than_in_training_are_told(copied_run, log):
  path, known = copied_run / 'data.json', {'count': 3, 'hash': 'a'}
  assert json.loads(path.read_text())['test']['count'] == tiny.TEST
  path.write_text(json.dumps({'test': known}))
  results = evaluate.evaluate(str(copied_run))
  (line,) = log
  assert line.startswith("the images of the split 'test' are not those")
  assert '3 then, 10 now' in line
  assert results['protocol']['hash'] != known['hash']


BROKEN = ModuleNotFoundError('it is not there')


def fail(*_, **__):
  raise BROKEN


@pytest.mark.parametrize(
  ('part', 'lost'),
  [
    ('experiment.evaluate.reconstruction_figure', 'results.png'),
    ('experiment.evaluate.save_png', 'results.png'),
    ('evaluation.examples.collect', 'report.html'),
    ('core.provenance.versions', 'report.html'),
    ('report.document.render', 'report.html'),
  ],
)
def test_what_decorates_cannot_lose_the_result(
  tiny_run, tmp_path, monkeypatch, log, part, lost
):
  module, _, name = part.rpartition('.')
  home = importlib.import_module(f'lasers_jax.{module}')
  monkeypatch.setattr(home, name, fail)
  returned = evaluate.evaluate(str(tiny_run.workdir), output=str(tmp_path))
  assert json.loads((tmp_path / 'results.json').read_text()) == json.loads(
    json.dumps(returned)
  )
  assert log == [f'no {lost}: it is not there']
  others = {'results.json', 'results.png', 'report.html'} - {lost}
  assert {path.name for path in tmp_path.iterdir()} == others


@pytest.mark.parametrize('package', ['matplotlib', 'jinja2'])
def test_packages_that_draw_cannot_lose_the_result(
  tiny_run, tmp_path, monkeypatch, log, package
):
  for name in list(sys.modules):
    if name.split('.')[0] == package or name.endswith(
      ('report.document', 'report.panels', 'report.charts')
    ):
      monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, package, None)  # cannot be imported
  monkeypatch.delattr('lasers_jax.report.document', raising=False)
  evaluate.evaluate(str(tiny_run.workdir), output=str(tmp_path))
  (line,) = log
  assert line.startswith('no report.html: ')
  assert package in line
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'results.json', 'results.png'}


def test_the_result_is_written_before_it_is_decorated(
  tiny_run, tmp_path, monkeypatch
):
  def look(*_, **__):
    assert (tmp_path / 'results.json').exists()
    raise KeyboardInterrupt

  monkeypatch.setattr(evaluate, 'reconstruction_figure', look)
  with pytest.raises(KeyboardInterrupt):
    evaluate.evaluate(str(tiny_run.workdir), output=str(tmp_path))


@pytest.mark.parametrize('flag', ['output', 'dump'])
def test_what_cannot_be_written_is_said_before_measuring(
  tiny_run, tmp_path, monkeypatch, flag
):
  (tmp_path / 'file').write_text('')
  monkeypatch.setattr(protocol, 'measure', fail)
  folders = {'output': str(tmp_path), flag: str(tmp_path / 'file' / 'x')}
  with pytest.raises(InputError, match=f'cannot be written: .* --{flag}'):
    evaluate.measure(loading.load(tiny_run.workdir), **folders)
