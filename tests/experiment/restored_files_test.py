"""Restorations in use: files of restored images, samples, one command."""

import json

import numpy as np
import pytest
from PIL import Image

from lasers_jax import inference
from lasers_jax.degradations import in_evaluation
from lasers_jax.errors import InputError
from lasers_jax.evaluation import examples
from lasers_jax.experiment import codec_files, compare, evaluate, loop
from lasers_jax.experiment.loading import load
from tests import tiny

pytestmark = pytest.mark.slow


def train(pictures, workdir, degradation, **changes):
  config = {**tiny.config(pictures, **changes), 'degradation': degradation}
  loop.train_and_evaluate(config, str(workdir))
  return load(workdir)


def first_images(model, count):
  source = model.open_split('test')
  return model.experiment.data.first_images(source, count)


@pytest.fixture(scope='module')
def model(pictures, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('holes') / 'run'
  # As in restoration_test.py: one program serves both.
  return train(pictures, workdir, {'name': 'inpaint', 'mask': 'mixed'})


def test_the_file_of_a_damaged_picture_decodes_to_that_of_evaluation(
  model, tmp_path
):
  folders = {x: tmp_path / x for x in ('damaged', 'masks', 'files', 'decoded')}
  for name in 'damaged', 'masks':
    folders[name].mkdir()
  settings, expected = model.experiment.degradation, []
  for i, image in enumerate(first_images(model, 2)):
    inputs = in_evaluation(settings, image, i).inputs
    colours = np.round(255 * inputs[..., :3]).astype(np.uint8)
    Image.fromarray(colours).save(folders['damaged'] / f'{i}.png')
    mask = 255 * inputs[..., 3].astype(np.uint8)
    Image.fromarray(mask).save(folders['masks'] / f'{i}.png')
    expected += inference.reconstruct(
      model.module, model.variables, [inputs], model.mesh
    )
  files = sorted(map(str, folders['damaged'].iterdir()))
  read = codec_files.reader_of_degraded(model, str(folders['masks']))
  codec_files.encode_files(model, files, str(folders['files']), read=read)
  files = sorted(map(str, folders['files'].iterdir()))
  codec_files.decode_files(model, files, str(folders['decoded']))
  for i, picture in enumerate(expected):
    decoded = np.asarray(Image.open(folders['decoded'] / f'{i}.png'))
    np.testing.assert_array_equal(decoded, picture)


def test_masks_that_are_missing_or_do_not_fit_are_one_line(model, tmp_path):
  file = str(tmp_path / 'a.png')
  Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file)
  read = codec_files.reader_of_degraded(model, None)
  with pytest.raises(InputError, match=r'a.png: .* needs a mask'):
    codec_files.encode_files(model, [file], str(tmp_path / 'x'), read=read)
  read = codec_files.reader_of_degraded(model, str(tmp_path / 'masks'))
  with pytest.raises(InputError, match=r'a.png: no image: '):
    codec_files.encode_files(model, [file], str(tmp_path / 'x'), read=read)
  (tmp_path / 'masks').mkdir()
  mask = Image.fromarray(np.zeros((8, 16), np.uint8))
  mask.save(tmp_path / 'masks' / 'a.png')
  said = r'a.png: the mask is 8x16 and the image 16x16: they must be of one'
  with pytest.raises(InputError, match=said):
    codec_files.encode_files(model, [file], str(tmp_path / 'x'), read=read)


def test_a_diffusion_decoder_draws_restorations(
  pictures, tmp_path, monkeypatch
):
  monkeypatch.setattr(examples, 'STEPS', (1,))  # each is compiled
  decoder = {
    'name': 'diffusion',
    'channels': 8,
    'multipliers': (1,),
    'blocks': 1,
    'sampling': {'steps': 2},
  }
  degradation = {'name': 'inpaint', 'mask': 'centre', 'protocol': 'input'}
  config = tiny.config(pictures, steps=2)
  config['bottleneck'] = {'name': 'vq', 'K': 16}
  config['loss']['weights'] = {'pixel': 10.0, 'commitment': 0.25}
  config['loss']['weights']['diffusion'] = 1.0
  config |= {'decoder': decoder, 'degradation': degradation}
  loop.train_and_evaluate(config, str(tmp_path / 'run'))
  model = load(tmp_path / 'run')
  results = evaluate.evaluate(model, output=str(tmp_path / 'output'))
  draws = results['draws']
  assert (draws['images'], draws['draws']) == (tiny.TEST, 8)
  assert draws['spread'] > 0
  assert draws['psnr'] < draws['psnr_of_mean']
  assert draws['psnr'] < draws['psnr_of_best']
  report = (tmp_path / 'output' / 'report.html').read_text()
  assert 'PSNR of their mean in dB' in report
  assert 'With the input: the decoder sees' in report
  # Whatever is drawn, the known pixels are those of the input.
  images = np.stack(first_images(model, 2))
  mask = np.zeros((16, 16), bool)
  mask[4:12, 4:12] = True
  restored = model.restore(images, mask)
  np.testing.assert_array_equal(restored[:, ~mask], images[:, ~mask])
  assert (restored[:, mask] != images[:, mask]).any()
  assert 'clean' not in results
  with pytest.raises(InputError, match='which a file does not hold'):
    model.encoder().encode(images[0])
  with pytest.raises(InputError, match='the code alone: train with'):
    model.decode(model.encode(images))


def test_a_comparison_has_the_methods_without_a_model(pictures, tmp_path):
  config = tiny.config(pictures, steps=2, batch_size=8)
  config['degradation'] = {'name': 'superres', 'scale': 2}
  entries = compare.compare(config, ['fsq'], [1.0, 2.0], str(tmp_path))
  assert [x.error for x in entries if not x.results] == []
  table = (tmp_path / 'table.md').read_text()
  for words in 'copy of a clean image', '| bicubic |', '| lanczos |':
    assert words in table
  assert table.count('| nearest |') == 1
  assert '| webp small |' in table
  assert (tmp_path / 'pictures.png').exists()
  rows = json.loads((tmp_path / 'table.json').read_text())
  # They are measured once.
  assert sum('baselines' in row['results'] for row in rows) == 1
  results = rows[0]['results']
  assert {'psnr_y_cropped', 'consistency'} < results.keys()
  # The input is the small image enlarged by the same cubic.
  np.testing.assert_allclose(
    results['baselines']['bicubic']['psnr']['mean'],
    results['input']['psnr']['mean'],
    atol=0.02,
  )
  assert results['input']['consistency']['mean'] > 30
  model = load(entries[0].path)
  small = np.zeros((8, 10, 3), np.uint8)
  assert model.restore(small).shape == (16, 20, 3)
  whole = model.with_config(data={'whole': True})
  said = 'scale=2 does not divide an image of 15x16: crop it'
  with pytest.raises(InputError, match=said):
    evaluate.evaluate(whole, data=[np.zeros((15, 16, 3), np.uint8)])


def test_noise_of_25_is_reduced_by_2_decibels(pictures, tmp_path):
  config = tiny.config(pictures, steps=200, checkpoint_every=0, log_every=50)
  config['network'] |= {'D': 16}
  config['bottleneck'] = {'name': 'none'}
  config['loss']['weights'] = {'pixel': 10.0}
  config['optimizer'] |= {'learning_rate': 5e-3, 'ema': 0.98}
  config['mesh']['data'] = 1
  config['degradation'] = {'name': 'denoise', 'sigma': (25.0,)}
  loop.train_and_evaluate(config, str(tmp_path))
  results = evaluate.evaluate(str(tmp_path), baselines=False)
  before, after = (x['psnr']['mean'] for x in (results['input'], results))
  assert abs(before - 20.5) < 0.5  # clipped and rounded; 20.2 dB without
  assert after > before + 2, (before, after)
