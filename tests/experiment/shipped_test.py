"""The models that come with the package: they need nothing else."""

import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import types

import numpy as np
import pytest
from PIL import Image
from skimage.data import chelsea

import lasers_jax as lj
from lasers_jax.core.images import save_png
from lasers_jax.evaluation import rate_distortion
from lasers_jax.experiment import (
  codec_files,
  codecs,
  exported,
  generate,
  shipped,
)
from lasers_jax.experiment.priors.generate import sample_prior
from lasers_jax.metrics.registry import ALWAYS

ROOT = pathlib.Path(__file__).parents[2]
NAMES = list(shipped.MODELS)
MODELS = ROOT / 'lasers_jax' / 'models'
FILES = [path for path in MODELS.rglob('*') if path.is_file()]
CODECS = [
  name for name, about in shipped.MODELS.items() if about.fitted == 'codec'
]


def psnr(found, image):
  error = np.square(found.astype(float) - image).mean()
  return 10 * np.log10(255**2 / error)


def read(name):
  """Reads a model or prior that comes along, as the list says."""
  return getattr(lj, shipped.MODELS[name].reader)(name)


@pytest.fixture(scope='module')
def image():
  return chelsea()[60:188, 90:251]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
  """A folder where there is nothing."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_the_folders_are_those_of_the_table():
  folders = {path.relative_to(MODELS).parts[0] for path in FILES}
  assert folders == set(NAMES)
  assert sum(path.stat().st_size for path in FILES) < 25e6


def test_the_wheel_has_every_file():
  settings = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  patterns = settings['tool']['setuptools']['package-data']['lasers_jax.models']
  for path in FILES:
    name = path.relative_to(MODELS).as_posix()
    assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


@pytest.mark.parametrize('name', NAMES)
def test_what_is_listed_is_true(name):
  about = lj.models()[name]
  path = pathlib.Path(shipped.folder(name))
  files = [x for x in FILES if path in x.parents]
  assert about['bytes'] == sum(x.stat().st_size for x in files)
  assert about['bytes'] < 6e6
  assert about['weights'] == read(name).weights
  assert about['codecs'] == sorted(x.name for x in path.glob('codec*.npz'))
  for text in about['summary'], about['licence'], about['command']:
    assert text
    assert '\n' not in text
  card = (path / 'README.md').read_text()
  assert about['licence'] in card
  assert card.startswith(f'# {name}\n')
  assert f"lj.{about['reader']}('{name}')" in card


@pytest.mark.parametrize('name', NAMES)
def test_no_path_of_a_machine_is_in_it(name):
  folder = pathlib.Path(shipped.folder(name))
  for path in (x for x in FILES if folder in x.parents):
    data = path.read_bytes()
    for word in b'/work', b'/tmp', b'/home', b'/root':
      assert word not in data, path


def test_a_prior_that_comes_along_draws_digits(elsewhere):
  model = lj.load('mnist-ae')
  images = lj.draw(model, 'pmfs', 16)
  assert images.shape == (16, 28, 28, 3)
  assert len(np.unique(images.reshape(16, -1), axis=0)) == 16
  assert psnr(model.reconstruct(images), images) > 18  # it knows what it draws
  # Ink in the middle, and a dark border.
  assert images[:, 10:18, 10:18].mean() > 40 > 8 > images[:, :2].mean()
  with pytest.raises(lj.InputError, match='there is no prior at .*gmm.npz'):
    lj.draw(model, 'gmm', 2)


@pytest.mark.slow
def test_a_prior_over_maps_draws_the_class_that_is_asked_for(elsewhere):
  prior = lj.load_prior('mnist-ar')
  model = prior.view.model
  assert model.weights == lj.models()['mnist-vq']['weights']
  assert prior.config['stage_one']['path'] == 'mnist-vq'  # on any machine
  labels = prior.labels(['0'] * 8 + ['1'] * 8)
  ink = prior.images(prior.draw(labels)).astype(float)[..., 0]
  middle = ink[:, 12:16, 12:16].mean((1, 2))
  assert np.median(middle[:8]) < 30 < 130 < np.median(middle[8:])
  assert len(np.unique(ink.reshape(16, -1), axis=0)) == 16
  with pytest.raises(lj.InputError, match='^mnist-ar comes with the package'):
    sample_prior(prior)
  with pytest.raises(lj.InputError, match='is a prior and no model'):
    lj.load('mnist-ar')


def test_a_model_of_the_package_is_known_by_its_name():
  assert shipped.named(shipped.folder('mnist-vq')) == 'mnist-vq'
  assert shipped.named('/runs/mnist-vq') == '/runs/mnist-vq'


@pytest.mark.parametrize('name', NAMES)
def test_the_page_says_what_was_measured(name):
  page = (ROOT / 'docs' / 'models.md').read_text()
  (row,) = re.findall(rf'^\| `{name}` \|.*', page, re.MULTILINE)
  stats = pathlib.Path(shipped.folder(name), exported.STATS)
  found = json.loads(stats.read_text()) if stats.exists() else {}
  if curve := found.get('curve'):
    bits, quality = (
      f'{min(x):.{digits}f} to {max(x):.{digits}f}'
      for digits, x in (
        (2, [one['bits_per_pixel'] for one in curve['rows']]),
        (1, [one['psnr']['mean'] for one in curve['rows']]),
      )
    )
    assert f' | {bits} | {quality} on Kodak |' in row
  if results := found.get('results'):
    bits = results['bits_per_pixel']['fixed_length']
    said = bits if isinstance(bits, str) else f'{bits:.4g}'
    assert f' | {said} | {results["psnr"]["mean"]:.2f} on ' in row


@pytest.mark.parametrize('name', CODECS)
def test_it_compresses_wherever_one_is(name, image, elsewhere):
  pytest.importorskip('constriction')
  model = lj.load(name)
  sizes = {}
  for file in lj.models()[name]['codecs']:
    state = codecs.load_state(os.path.join(model.path, file))
    choice = codecs.Choice(state.changes, context='context' in file)
    assert choice.file == file
    data = model.encoder(choice).encode(image)
    found = model.decompress(data)
    assert found.shape == image.shape
    if name == 'photo-codec':
      assert psnr(found, image) > 24
    elif not choice.changes:
      np.testing.assert_array_equal(found, model.reconstruct(image))
    sizes[file] = len(data)
  assert max(sizes.values()) < 0.25 * image.nbytes
  if name != 'mnist-vq':  # contexts of digits say nothing of a cat
    assert sizes['codec-context.npz'] < sizes['codec.npz']
  assert model.compress(image) == model.encoder().encode(image)
  assert not os.listdir(elsewhere)


def test_a_step_of_the_photo_codec_is_a_rate(image):
  pytest.importorskip('constriction')
  model, sizes, quality = lj.load('photo-codec'), [], []
  for step in 0.12, 0.225, 0.4:
    other = model.with_(step=step)
    data = other.compress(image, context=True)
    sizes.append(len(data))
    quality.append(psnr(model.decompress(data), image))
  assert sizes == sorted(sizes, reverse=True)
  assert quality == sorted(quality, reverse=True)
  assert sizes[-1] < 0.5 * sizes[0] < 0.1 * image.nbytes


def test_a_search_gives_more_decibels_for_no_more_bits(
  image, tmp_path, monkeypatch
):
  pytest.importorskip('constriction')
  model, picture = lj.load('photo-codec'), str(tmp_path / 'cat.png')
  image = image[:64, :64]
  save_png(picture, image)
  plain, searched = (model.compress(image, True, search=x) for x in (0, 4))
  assert len(searched) <= len(plain)
  better = psnr(model.decompress(searched), image)
  assert better > psnr(model.decompress(plain), image) + 0.2
  choice = codecs.Choice(context=True)
  codec_files.encode_files(model, [picture], str(tmp_path), choice, search=4)
  assert (tmp_path / 'cat.lz').read_bytes() == searched
  monkeypatch.setattr(rate_distortion, 'CLASSICAL', {'JPEG': (10, 90)})
  codec_files.draw_curve(
    model, [picture], str(tmp_path), [choice], ALWAYS, searches=(0, 4)
  )
  rows = json.loads((tmp_path / 'curve.json').read_text())['rows']
  assert [(row['setting'], row['bytes']) for row in rows[2:]] == [
    ('as trained, context', len(plain)),
    ('as trained, context, search 4', len(searched)),
  ]


def test_what_a_search_requires(image):
  model = lj.load('photo-codec')
  for search in -1, 1.5:
    with pytest.raises(lj.InputError, match=f'search is {search}: it must be'):
      model.compress(image, search=search)
  with pytest.raises(lj.InputError, match=r'^a search requires a price of b'):
    model.with_(price=0.0).compress(image, search=1)
  with pytest.raises(lj.InputError, match=r'^a search requires a price of b'):
    lj.load('cifar10-vq').compress(image, search=1)
  for change, why in (
    ({'decoder': {'name': 'diffusion'}}, "decoder of one pass: decoder.name='"),
    ({'degradation': {'name': 'denoise'}}, 'the original image, and this mod'),
  ):
    other = types.SimpleNamespace(
      module=model.module,
      config={**model.config, **change},
      experiment=types.SimpleNamespace(degradation=change.get('degradation')),
    )
    with pytest.raises(lj.InputError, match=f'^a search requires (a )?{why}'):
      codecs.check_search(other, 1)


def test_a_folder_of_that_name_comes_first(elsewhere):
  os.mkdir('photo-codec')
  with pytest.raises(lj.InputError, match='is no workdir of a run'):
    lj.load('photo-codec')


def test_a_choice_without_state_says_which_there_are(elsewhere):
  pytest.importorskip('constriction')
  model = lj.load('photo-codec')
  with pytest.raises(lj.InputError) as error:
    model.encoder(codecs.Choice({'step': 0.3}))
  said = str(error.value)
  assert said.startswith(f'no codec-step0.3.npz in {model.path} (there: codec')
  assert ', codec-step0.4-context.npz, ' in said
  assert said.endswith(
    "no images to fit it to: there is no folder 'images': check the path"
  )
  assert not os.listdir(elsewhere)


def test_a_value_that_it_has_is_no_change():
  model = lj.load('photo-codec')
  assert model.with_(step=model.module.bottleneck.step) is model
  assert model.with_(step=0.4, price=0.15).changes == {'step': 0.4}


def test_results_do_not_go_into_the_package():
  path = shipped.folder('photo-codec')
  with pytest.raises(lj.InputError) as error:
    shipped.own_folder(path, None)
  assert str(error.value) == (
    'photo-codec comes with the package: say where results go '
    '(--output=FOLDER), or export it to a folder of yours and take that'
  )
  with pytest.raises(lj.InputError, match='comes with the package'):
    generate.sample_all([lj.load('photo-codec')], ['histogram'], 2)
  model = lj.load('photo-codec').with_(step=0.3)
  with pytest.raises(lj.InputError, match='comes with the package'):
    model.fit_codec(np.zeros((2, 64, 64, 3), np.uint8))
  assert shipped.own_folder(path, '/there') == '/there'
  assert shipped.own_folder('/runs/mine', None) == '/runs/mine'


@pytest.mark.slow
def test_the_command_takes_its_name(tmp_path, image):
  pytest.importorskip('constriction')
  Image.fromarray(image).save(tmp_path / 'a.png')
  for words in (
    ['encode', 'a.png', 'files'],
    ['decode', 'files/a.lz', 'decoded'],
  ):
    subprocess.run(
      [sys.executable, str(ROOT / 'codec.py'), '--model=photo-codec', *words],
      cwd=tmp_path,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      check=True,
      timeout=300,
    )
  found = np.asarray(Image.open(tmp_path / 'decoded' / 'a.png'))
  data = (tmp_path / 'files' / 'a.lz').read_bytes()
  np.testing.assert_array_equal(found, lj.load('photo-codec').decompress(data))
