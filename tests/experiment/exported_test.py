"""Exported models: they need nothing else, and say what they are."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lasers_jax.errors import InputError
from lasers_jax.experiment import evaluate, exported
from lasers_jax.experiment.loading import load
from tests import tiny


@pytest.fixture(scope='module')
def workdir(tiny_run, tmp_path_factory):
  """A finished run that was measured, and whose codes were counted."""
  path = tmp_path_factory.mktemp('exported') / 'run'
  shutil.copytree(tiny_run.workdir, path)
  evaluate.measure(load(path), output=str(path))
  load(path).fit_codec()
  return path


@pytest.fixture(scope='module')
def folder(workdir, tmp_path_factory):
  """What is exported of it; no test changes it."""
  path = tmp_path_factory.mktemp('elsewhere') / 'photos-model'
  load(workdir).export(path)
  return path


@pytest.fixture
def copied(folder, tmp_path):
  return shutil.copytree(folder, tmp_path / 'model')


def test_it_is_the_same_model(workdir, folder):
  trained, found = load(workdir), load(folder)
  assert (found.step, found.weights) == (6, trained.weights)
  assert found.config == trained.config
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.device_get(found.variables),
    jax.device_get(trained.variables),
  )
  image = tiny.images(1)[0]
  np.testing.assert_array_equal(
    found.reconstruct(image), trained.reconstruct(image)
  )
  pytest.importorskip('constriction')
  assert found.compress(image) == trained.compress(image)
  np.testing.assert_array_equal(
    found.decompress(trained.compress(image)),
    trained.decompress(found.compress(image)),
  )


def test_it_holds_evaluation_alone(folder):
  names = sorted(os.listdir(folder))
  expected = ['README.md', 'config.json', 'model.safetensors', 'stats.json']
  assert [x for x in names if x != 'codec.npz'] == expected
  assert json.loads((folder / 'config.json').read_text())['format'] == 1
  with safe_open(folder / 'model.safetensors', framework='numpy') as file:
    arrays = set(file.keys())
    assert file.metadata()['step'] == '6'
  assert 'params/decoder/Conv_0/kernel' in arrays
  # Whoever may read one file of it may read all.
  assert len({os.stat(folder / x).st_mode for x in names}) == 1
  assert {x.split('/')[0] for x in arrays} == set(load(folder).variables)


def test_it_needs_no_data_and_no_workdir(tiny_run, tmp_path, log):
  """Both are gone before it is read, and even before it is written."""
  shutil.copytree(tiny_run.workdir, tmp_path / 'run')
  config = {**tiny_run.config['data'], 'name': 'folder:/gone'}
  text = json.dumps({'format': 1, **tiny_run.config, 'data': config})
  (tmp_path / 'run' / 'config.json').write_text(text)
  load(tmp_path / 'run').export(tmp_path / 'model')
  shutil.rmtree(tmp_path / 'run')
  assert log[-1].startswith("no statistics of latents: there is no folder '/g")
  model = load(tmp_path / 'model')
  assert model.reconstruct(tiny.images(2)).shape == (2, 16, 16, 3)
  stats = json.loads((tmp_path / 'model' / 'stats.json').read_text())
  assert "no folder '/gone'" in stats['latent']['missing']
  assert 'No statistics: there is no folder' in (
    (tmp_path / 'model' / 'README.md').read_text()
  )
  with pytest.raises(InputError, match="no folder '/gone'"):
    evaluate.evaluate(model)
  results = evaluate.evaluate(model, tiny.images(3), metrics=['ms_ssim'][:0])
  assert results['psnr']['count'] == 3
  assert results['protocol']['data'] == 'given'
  assert not (tmp_path / 'model' / 'checked.npy').exists()


def test_statistics_are_those_of_the_latents(workdir, folder, pictures):
  stats = json.loads((folder / 'stats.json').read_text())
  model = load(workdir)
  source = model.open_split('train')
  images = model.experiment.data.first_images(source, tiny.TRAIN)
  z = model.latents(np.stack(images)).reshape(-1, 4).astype(np.float64)
  latent = stats['latent']
  # A tenth of the images is held out for the split that has no folder.
  assert latent['images'] == len(images)
  assert latent['sites'] == len(z)
  np.testing.assert_allclose(latent['mean'], z.mean(axis=0), 1e-5, 1e-6)
  np.testing.assert_allclose(latent['deviation'], z.std(axis=0), 1e-5, 1e-6)
  used = np.unique(model.encode(np.stack(images)).atoms)
  assert latent['usage'] == len(used) / 16
  assert 1 < latent['perplexity'] <= len(used)
  assert stats['bits_per_pixel'] == (7 + 2 * 8) / 4
  results = json.loads((workdir / 'results.json').read_text())
  assert stats['results'] == results
  assert 'protocol' in results


def test_the_card_says_what_it_is(folder, pictures):
  text = (folder / 'README.md').read_text()
  for expected in (
    '# photos-model',
    "model = lj.load('photos-model')",
    'Bottleneck: `lasers` (',
    'S 2',
    f'Data: `folder:{pictures}`, split `train`, crops of 16x16',
    'Steps: 6 of 6, with 8 images each',
    '5.75 bits per pixel of a 16x16 image',
    'PSNR ',
    '10 images.',
    'centre 16x16; dB, peak 1',
    'Usage of the code',
    'Unknown: the licence of the model is not stated here',
  ):
    assert expected in text, expected
  assert '{' not in text.replace("{'", '')


def test_the_card_says_what_files_are(workdir, folder, tmp_path):
  """Those that the weights of the model made, and none of JPEG."""
  row = {'bits_per_pixel': 0.25, 'psnr': {'mean': 30.0}, 'ssim': {'mean': 0.9}}
  rows = [
    {'codec': name, 'setting': setting, **row}
    for name, setting in (('JPEG', 'quality 1'), ('run', 'S=2'))
  ]
  said = {'weights': load(workdir).weights, 'images': ['a.png', 'b.png']}
  copy = shutil.copytree(folder, tmp_path / 'copy')
  (copy / 'curve').mkdir()
  for name, weights in (('first', said['weights']), ('other', '0' * 16)):
    found = {'rows': rows, 'protocol': {**said, 'weights': weights}}
    (copy / 'curve' / 'curve.json').write_text(json.dumps(found))
    load(copy).export(tmp_path / name)
  text = (tmp_path / 'first' / 'README.md').read_text()
  assert 'Files of 2 images, from a.png to b.png, all bytes counted' in text
  assert '| S=2 | 0.250 | 30.00 | 0.900 |' in text
  assert 'quality 1' not in text
  load(tmp_path / 'first').export(tmp_path / 'again')  # as stats.json has it
  assert (tmp_path / 'again' / 'README.md').read_text() == text.replace(
    'first', 'again'
  )
  assert 'S=2' not in (tmp_path / 'other' / 'README.md').read_text()


def test_results_of_other_weights_are_left_out(workdir, tmp_path):
  load(workdir, 4).export(tmp_path / 'older')
  stats = json.loads((tmp_path / 'older' / 'stats.json').read_text())
  assert stats['results'] is None
  assert 'Not measured.' in (tmp_path / 'older' / 'README.md').read_text()
  load(workdir).with_(S=1).export(tmp_path / 'fewer')
  assert load(tmp_path / 'fewer').module.bottleneck.S == 1
  # Its files are of two atoms a site, and nothing there says so.
  assert not (tmp_path / 'fewer' / 'codec.npz').exists()


def test_an_export_can_be_exported(folder, tmp_path):
  load(folder).export(tmp_path / 'again')
  assert load(tmp_path / 'again').weights == load(folder).weights
  again = json.loads((tmp_path / 'again' / 'stats.json').read_text())
  assert again == json.loads((folder / 'stats.json').read_text())


def test_it_replaces_an_export_and_nothing_else(copied, folder, tmp_path):
  (copied / 'rest.txt').write_text('of an older one')
  load(folder).export(copied)
  assert not (copied / 'rest.txt').exists()
  (tmp_path / 'empty').mkdir()
  load(folder).export(tmp_path / 'empty')
  assert load(tmp_path / 'empty').step == 6
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'a.txt').write_text('mine')
  for path in tmp_path / 'mine', tmp_path / 'mine' / 'a.txt':
    with pytest.raises(InputError, match='exists and is no exported model'):
      load(folder).export(path)
  assert os.listdir(tmp_path / 'mine') == ['a.txt']
  with pytest.raises(InputError, match='cannot be written: Not a directory'):
    load(folder).export(tmp_path / 'mine' / 'a.txt' / 'x')


def test_half_of_its_bytes_are_another_model(workdir, folder, tmp_path):
  trained = load(workdir)
  trained.export(tmp_path / 'half', half=True, licence='CC0, like the data.')
  found, path = load(tmp_path / 'half'), tmp_path / 'half' / exported.WEIGHTS
  assert path.stat().st_size < 0.6 * (folder / exported.WEIGHTS).stat().st_size
  for a, b in zip(
    *map(jax.tree.leaves, (found.variables, trained.variables)), strict=True
  ):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=2**-11, atol=2**-24)
  assert found.weights != trained.weights
  # Results and tables of other weights stay behind.
  assert not (tmp_path / 'half' / 'codec.npz').exists()
  card = (tmp_path / 'half' / 'README.md').read_text()
  assert 'CC0, like the data.\n' in card
  assert 'Not measured.' in card
  assert 'Unknown' not in card
  found.export(tmp_path / 'again', half=True)  # rounds nothing more
  assert load(tmp_path / 'again').weights == found.weights


def test_weights_beyond_float16_are_one_line(workdir, tmp_path):
  model = load(workdir)
  model.variables['params']['decoder']['Conv_0']['bias'] += 1e5
  with pytest.raises(InputError, match='half: a weight is beyond 65504'):
    model.export(tmp_path / 'half', half=True)
  assert not (tmp_path / 'half').exists()


def test_it_is_written_whole_or_not_at_all(
  copied, folder, tmp_path, monkeypatch
):
  def fail(*_):
    raise RuntimeError('the power is gone')

  model = load(folder)
  monkeypatch.setattr(exported, 'save', fail)
  for target in copied, tmp_path / 'new':
    with pytest.raises(RuntimeError, match='power'):
      model.export(target)
  assert load(copied).weights == model.weights
  assert os.listdir(tmp_path) == ['model']


def rewrite(folder, change):
  """Changes the arrays of an export, and keeps what is said of them."""
  path = folder / 'model.safetensors'
  with safe_open(path, framework='numpy') as file:
    about = file.metadata()
  arrays = load_file(path)
  change(arrays)
  save_file(arrays, path, about)


NAME = 'params/decoder/Conv_0/bias'


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    (
      lambda x: x.pop(NAME),
      f'another model: {NAME} is missing there and fl',
    ),
    (
      lambda x: x.update({NAME: np.zeros((3, 2), np.float32)}),
      rf'another model: {NAME} is float32 \[3, 2\] there and float32 \[',
    ),
    (
      lambda x: x.update({NAME: x[NAME].astype(np.float64)}),
      f'another model: {NAME} is float64 ',
    ),
    (
      lambda x: x.update({'params/more': x[NAME]}),
      'another model: params/more is float32 .* there and missing in config',
    ),
    (lambda x: x[NAME].__iadd__(1), 'damaged: its arrays are not those that'),
    (
      lambda x: x.update({NAME: x[NAME].astype(np.float16)}),
      'damaged: its arrays are not those that',
    ),
  ],
)
def test_other_arrays_are_one_line(copied, change, said):
  rewrite(copied, change)
  with pytest.raises(InputError, match=said) as error:
    load(copied)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('data', [b'', b'<html>moved', bytes(range(256)) * 9])
def test_a_damaged_file_is_one_line(copied, data):
  path = copied / 'model.safetensors'
  whole = path.read_bytes()
  for text in data, whole[: len(whole) // 2]:
    path.write_bytes(text)
    with pytest.raises(InputError, match='model.safetensors is damaged') as e:
      load(copied)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize(
  ('config', 'said'),
  [
    ('{"format": 2}', 'was written in format 2, and this release reads format'),
    ('{', 'is no workdir of a run'),
    ('{"format": 1, "steps": 1}', 'the config has no network.name|network'),
  ],
)
def test_another_config_is_one_line(copied, config, said):
  (copied / 'config.json').write_text(config)
  with pytest.raises(InputError, match=said) as error:
    load(copied)
  assert '\n' not in str(error.value)


def test_it_has_no_checkpoints(folder):
  with pytest.raises(InputError, match='leave out the checkpoint 4'):
    load(folder, 4)


@pytest.mark.slow
def test_the_command_and_evaluation_of_what_it_writes(workdir, tmp_path):
  output = tmp_path / 'model'
  flags = f'--workdir={workdir}', f'--output={output}', '--checkpoint=4'
  process = tiny.start('export.py', *flags, devices=1)
  out, log = process.communicate(timeout=240)
  assert process.returncode == 0, log
  assert out.startswith(f'{output}: step 4, ')
  results = evaluate.evaluate(str(output), output=str(output))
  assert results['psnr']['count'] == tiny.TEST
  assert (output / 'report.html').exists()
