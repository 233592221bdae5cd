"""A comparison of bottlenecks, from a config to a report."""

import json
import shutil

import jax
import pytest

from lasers_jax.errors import InputError, TrainingError
from lasers_jax.experiment import compare, loop, settings
from tests import tiny

pytestmark = pytest.mark.slow

NAMES, RATES = ['vq', 'product-fsq', 'none'], [5.0]  # 20 bits a site
RUNS = ['none-5', 'none-continuous', 'product-fsq-5']


@pytest.fixture(scope='module')
def config(pictures):
  return tiny.config(pictures, steps=2, evaluation__pictures=2)


@pytest.fixture(scope='module', autouse=True)
def keep_compiled():
  """Other tests go on with what is compiled."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'clear_caches', lambda: None)
    yield


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return tmp_path_factory.mktemp('comparison')


@pytest.fixture(scope='module')
def entries(config, path):
  return compare.compare(config, NAMES, RATES, str(path))


def by_folder(entries):
  return {entry.path.rsplit('/', 1)[1]: entry for entry in entries}


def test_every_rate_is_met_or_a_line_says_why(entries):
  found = by_folder(entries)
  assert sorted(x for x in found if found[x].results) == sorted(RUNS)
  for name in ('product-fsq-5', 'none-5'):
    bits = found[name].results['bits_per_pixel']['fixed_length']
    assert bits == found[name].rate
  assert found['vq-5'].error == (
    'no settings: 20 bits a site are 2^20 codes, and at most 262,144 fit; '
    'copies of it may meet them (residual, product)'
  )


def test_only_the_bottleneck_differs(entries, config):
  config = settings.with_defaults(config)
  for entry in entries:
    if entry.config:
      own = {**entry.config, 'bottleneck': 0, 'loss': 0}
      assert own == {**config, 'bottleneck': 0, 'loss': 0}
      assert entry.config['loss']['pixel'] == config['loss']['pixel']


def test_a_name_may_ask_for_a_decoder(config, path):
  plain, gan, refined = compare.plan(
    config, ['vq', 'vq+gan', 'vq+swycc-mse'], [1.0], str(path)
  )
  assert gan.path.endswith('vq+gan-1')
  assert 'discriminator' not in plain.config
  assert gan.config['loss']['perceptual'] == 'lpips-vgg16'
  assert refined.config['decoder']['name'] == 'diffusion'
  assert 'perceptual' not in refined.config['loss']['weights']


def test_the_report_is_there(entries, path):
  table = (path / 'table.md').read_text()
  assert table.count('\n| `') == len(RUNS)
  assert table.count('\n* `') == 1
  rows = json.loads((path / 'table.json').read_text())
  assert len(rows) == len(entries)
  results = [row['results'] for row in rows if row['results']]
  assert all({'protocol', 'psnr'} < x.keys() for x in results)
  for name in ('curves.png', 'pictures.png'):
    assert (path / name).stat().st_size > 1000


def test_what_is_finished_is_kept(entries, config, path, monkeypatch):
  def fail(*_):
    raise AssertionError('trained again')

  monkeypatch.setattr(compare, 'train_and_evaluate', fail)
  again = compare.compare(config, NAMES, RATES, str(path))
  assert [x.results for x in again] == [x.results for x in entries]


def test_what_is_finished_is_kept_where_pictures_move(
  entries, config, path, pictures, tmp_path, monkeypatch
):
  def fail(*_):
    raise AssertionError('trained again')

  monkeypatch.setattr(compare, 'train_and_evaluate', fail)
  moved = shutil.copytree(pictures, tmp_path / 'moved')
  data = {**config['data'], 'name': f'folder:{moved}'}
  again = compare.compare({**config, 'data': data}, NAMES, RATES, str(path))
  assert [x.results for x in again] == [x.results for x in entries]


def test_another_config_needs_another_folder(entries, config, path):
  other = {**config, 'seed': 1}
  with pytest.raises(InputError, match='choose another --workdir'):
    compare.compare(other, NAMES, RATES, str(path))


def test_a_run_that_fails_says_why_and_the_others_go_on(
  entries, config, path, tmp_path, monkeypatch
):
  real = loop.train_and_evaluate

  def fail_at_first(changed, folder):
    if 'vq' in folder:
      raise TrainingError('pixel is nan\nat step 1')
    return real(changed, folder)

  monkeypatch.setattr(compare, 'train_and_evaluate', fail_at_first)
  names = ['vq', 'none']
  found = by_folder(compare.compare(config, names, [1.0], str(tmp_path)))
  assert found['vq-1'].error == 'TrainingError: pixel is nan at step 1'
  assert found['none-continuous'].results
  assert '`vq` at 1 bits per pixel: TrainingError' in (
    (tmp_path / 'table.md').read_text()
  )


def test_a_run_that_was_asked_to_stop_ends_the_comparison(
  config, tmp_path, monkeypatch
):
  class Stopped:
    step = 1

  monkeypatch.setattr(compare, 'train_and_evaluate', lambda *_: Stopped)
  assert compare.compare(config, ['vq', 'fsq'], [1.0], str(tmp_path)) is None
  assert not (tmp_path / 'table.md').exists()


def test_an_unknown_name_is_an_error_before_anything_runs(config, tmp_path):
  with pytest.raises(InputError, match="the bottleneck is 'vqq': did you m"):
    compare.compare(config, ['vq', 'vqq'], [1.0], str(tmp_path))
  with pytest.raises(InputError, match='vq is not made of copies'):
    compare.compare(config, ['vq-fsq'], [1.0], str(tmp_path))
  assert not list(tmp_path.iterdir())
