"""The codec of a trained model, for each choice of settings."""

import functools
import os

import jax
import numpy as np
import pytest
from PIL import Image

from lasers_jax import inference
from lasers_jax.codec import (
  State,
  container,
  context,
  fit_scales,
  load,
  prices,
  save,
)
from lasers_jax.codec.model import (
  LEVELS,
  ModelCodec,
  fit_levels,
  fit_tables,
  with_levels,
)
from lasers_jax.core.sharding import make_mesh
from lasers_jax.errors import InputError
from lasers_jax.experiment import codec_files, codecs, loading, settings
from lasers_jax.experiment.codecs import Choice
from tests import tiny

pytest.importorskip('constriction')
pytestmark = pytest.mark.slow


def test_decoding_gives_the_codes_that_were_encoded(
  coded_run, some_pictures, some_files
):
  for i in range(3):
    image = np.asarray(Image.open(some_pictures / f'{i}.png'))
    h, w = image.shape[:2]
    codes = coded_run[1].codes_of(image)
    data = (some_files / f'{i}.lz').read_bytes()
    found, height, width = coded_run[1].codec.read(data)
    assert (height, width) == (h, w)
    jax.tree.map(np.testing.assert_array_equal, found, codes)


def test_pictures_come_back_as_the_model_decodes_them(
  coded_run, some_pictures, some_files
):
  image = np.asarray(Image.open(some_pictures / '0.png'))
  scaled = image[None] / np.float32(255)
  expected = coded_run[1].model.apply(coded_run[1].variables, scaled).images
  expected = np.clip(np.asarray(expected[0]), 0, 1) * 255
  found = coded_run[1].decode((some_files / '0.lz').read_bytes())
  assert found.shape == image.shape
  assert found.dtype == np.uint8
  assert np.abs(found - expected).max() <= 0.51


def test_pictures_of_near_sizes_share_programs(coded_run):
  coder, rng = coded_run[1], np.random.default_rng(5)
  programs = inference.encode_batch, inference._decode
  compiled = [program._cache_size() for program in programs]
  for h, w in (21, 18), (18, 23), (17, 19):  # all in arrays of 24 x 24
    image = rng.integers(0, 256, (h, w, 3), np.uint8)
    data = coder.encode(image)
    assert coder.decode(data).shape == image.shape
  for program, before in zip(programs, compiled, strict=True):
    assert program._cache_size() <= before + 1
  alone = np.pad(image, ((0, 1), (0, 1), (0, 0)), mode='edge')[None]
  encode = functools.partial(coder.model.apply, method='encode')
  expected = jax.jit(encode)(coder.variables, alone / np.float32(255))
  for a, b in zip(
    jax.tree.leaves(coder.codec.read(data)[0]),
    jax.tree.leaves(expected),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b[0])


def test_another_process_with_one_device_reads_the_same(
  coded_run, some_files, tmp_path
):
  path = str(some_files / '1.lz')
  process = tiny.start(
    'codec.py',
    'decode',
    f'--model={coded_run[0].path}',
    path,
    str(tmp_path),
    devices=1,
  )
  out, log = process.communicate(timeout=240)
  assert process.returncode == 0, log
  assert out == '1 image\n'
  found = np.asarray(Image.open(tmp_path / '1.png'))
  expected = coded_run[1].decode((some_files / '1.lz').read_bytes())
  np.testing.assert_array_equal(found, expected)


def test_two_processes_at_once_write_the_same_files(
  coded_run, copied_run, some_pictures, some_files
):
  """Both count the codes, and keep what they found."""
  started = [
    tiny.start(
      'codec.py', 'encode', f'--model={copied_run}',
      *map(str, sorted(some_pictures.iterdir())), str(copied_run / 'files'),
    )
    for _ in range(2)
  ]  # fmt: skip
  for process in started:
    _, log = process.communicate(timeout=240)
    assert process.returncode == 0, log
  assert sorted(os.listdir(copied_run / 'files')) == ['0.lz', '1.lz', '2.lz']
  assert not [x for x in os.listdir(copied_run) if x.endswith('.part')]
  for i in range(3):
    data = (copied_run / 'files' / f'{i}.lz').read_bytes()
    assert data == (some_files / f'{i}.lz').read_bytes()


def test_a_file_of_another_model(coded_run, some_files):
  frame = container.unpack((some_files / '0.lz').read_bytes())
  data = container.pack(frame._replace(model=b'abcd'))
  with pytest.raises(InputError, match='another model: 61626364 there'):
    coded_run[1].decode(data)


def test_states_that_are_missing_damaged_or_of_other_weights(copied_run):
  file = copied_run / 'codec.npz'
  state = State('other', {}, {'atoms': np.ones((1, 16), np.int64)})
  name = state.hash()
  for _ in range(2):
    with pytest.raises(InputError, match=f'no codec.* is {name.hex()} and of'):
      loading.load(copied_run).decoder(name)
    save(str(file), state)
  file.write_bytes(b'PK\3\4 something')
  with pytest.raises(InputError, match='codec.npz is damaged'):
    loading.load(copied_run).decoder(name)


def test_a_state_of_older_weights_is_replaced(coded_run, copied_run):
  file = copied_run / 'codec.npz'
  save(str(file), State('other', {}, {'atoms': np.ones((1, 16), np.int64)}))
  assert loading.load(copied_run).encoder().state.weights != 'other'
  assert load(str(file)).hash() == coded_run[1].state.hash()


@pytest.mark.parametrize('kind', ['choice', 'tables', 'levels'])
def test_a_state_that_does_not_fit_is_named(kind, coded_run, copied_run):
  file, state = copied_run / 'codec.npz', coded_run[1].state
  changed = {
    'choice': state._replace(changes={'S': 1}),
    'tables': state._replace(tables={}),
    'levels': state._replace(levels=np.zeros(3, np.float32)),
  }[kind]
  save(str(file), changed)
  with pytest.raises(InputError) as error:
    loading.load(copied_run).encoder()
  assert str(error.value).startswith(f'{file} is ')
  assert str(error.value).endswith('; remove it, and encode again')


def test_levels_are_fitted_to_images_of_any_size(coded_run):
  rng = np.random.default_rng(0)
  batches = [
    {
      'image': rng.integers(0, 256, (2, side, 16, 3), np.uint8),
      'mask': np.array([True, masked]),
      'height': np.full(2, side),
      'width': np.full(2, 16),
    }
    for side, masked in ((16, True), (32, False))
  ]
  seen = []

  def find(values, n):
    seen.append((len(values), n))
    return np.linspace(-1, 1, n)

  coder = coded_run[1]
  bottleneck = coder.model.bottleneck
  levels = fit_levels(coder.model, coder.variables, batches, find)
  sites = (2 * 16 * 16 + 32 * 16) // coder.codec.f**2
  n = 2**bottleneck.coefficient_bits
  assert seen == [(sites * bottleneck.S, n)]
  assert len(levels) == n


def test_levels_are_fitted_only_where_there_are_some():
  network = tiny.config('nowhere')['network']
  section = dict(name='scq', K=16, keep=2, coefficient_bits=3)
  model = settings.build_model(network, section)
  assert fit_levels(model, {}, [], LEVELS['lloyd']) is None


@pytest.mark.parametrize('levels', LEVELS)
def test_levels_of_lista_are_fitted_too(levels):
  network = tiny.config('nowhere')['network']
  section = dict(name='lista', K=16, iterations=4, keep=2, coefficient_bits=3)
  model = settings.build_model(network, section)
  image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
  variables = model.init(jax.random.key(0), image / np.float32(255))
  sides = {'height': np.array([16]), 'width': np.array([16])}
  batches = [{'image': image, 'mask': np.array([True]), **sides}]
  found = fit_levels(model, variables, batches, LEVELS[levels])
  assert len(found) == 8
  assert np.all(np.diff(found) > 0)
  variables = with_levels(variables, found)
  tables = fit_tables(model, variables, batches)
  state = State('none', {'coefficient_bits': 3}, tables, found)
  coder = ModelCodec(model, variables, make_mesh(data=1), None, state)
  codes, *_ = coder.codec.read(coder.encode(image[0]))
  jax.tree.map(np.testing.assert_array_equal, codes, coder.codes_of(image[0]))
  assert codes.coefficients.max() < 8


@pytest.mark.parametrize('with_context', [False, True])
@pytest.mark.parametrize('name', ['priced', 'entropy'])
def test_integers_at_a_price_are_chosen_by_the_bits_of_the_file(
  name, with_context, monkeypatch
):
  """The second pass lowers error plus price, by these bits, and is read."""
  monkeypatch.setattr(fit_scales, 'STEPS', 20)
  network = {'name': 'block', 'D': 48, 'f': 4, 'channels': 8, 'blocks': 0}
  section = {'name': name, 'step': 0.2, 'price': 0.15, 'limit': 60}
  model = settings.build_model(network, section)
  rng = np.random.default_rng(0)
  images = [smooth_picture(rng, side) for side in (32, 24, 32)]
  variables = model.init(jax.random.key(0), images[0][None] / np.float32(255))
  batches = [
    {
      'image': x[None],
      'mask': np.array([True]),
      'height': np.array([len(x)]),
      'width': np.array([len(x)]),
    }
    for x in images[1:]
  ]
  tables = fit_tables(model, variables, batches, with_context)
  state = State('none', {}, tables, None)
  coder = ModelCodec(model, variables, make_mesh(data=1), None, state)
  for image in images:
    output = model.apply(variables, image[None] / np.float32(255))
    z, first = np.asarray(output.z[0]), np.asarray(output.latent.codes[0])
    chosen = coder.codes_of(image)
    assert chosen.dtype == np.int32
    decoded, *_ = coder.codec.read(coder.encode(image))
    np.testing.assert_array_equal(decoded, chosen)
    mean = variables['codebook']['bottleneck'].get('mean', 0)
    steps = (z - np.asarray(mean)) / 0.2
    bits = prices(tables, first, 60, np.stack([first, chosen]))
    costs = (steps - np.stack([first, chosen])) ** 2 + 0.15 * bits
    assert (costs[1] <= costs[0] + 1e-3).mean() > 0.999
    assert costs[1].sum() < costs[0].sum()


def smooth_picture(rng, side) -> np.ndarray:
  rows = np.cumsum(rng.standard_normal((side, side, 3)), axis=0)
  rows = np.cumsum(rows, axis=1)
  return np.uint8(np.clip(128 + 4 * rows, 0, 255))


def test_each_choice_has_a_file_of_its_own():
  assert Choice().file == 'codec.npz'
  few = {'coefficient_bits': 6, 'S': 3}
  assert Choice(few).file == 'codec-S3-coefficient_bits6-lloyd.npz'
  assert Choice(context=True).file == 'codec-context.npz'
  assert Choice({'S': 3}, context=True).file == 'codec-S3-lloyd-context.npz'
  assert Choice({'step': 0.2}).file == 'codec-step0.2.npz'


@pytest.fixture(scope='module')
def contextual(coded_run):
  """The codec of the model with a context model of a few steps."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(context, 'STEPS', 5)
    return coded_run[0].encoder(Choice(context=True))


def test_a_context_model_changes_the_file_and_not_the_codes(
  coded_run, contextual, some_pictures, tmp_path
):
  image = np.asarray(Image.open(some_pictures / '0.png'))
  data = contextual.encode(image)
  assert data != coded_run[1].encode(image)
  (tmp_path / '0.lz').write_bytes(data)
  codec_files.decode_files(
    coded_run[0], [str(tmp_path / '0.lz')], str(tmp_path)
  )
  expected = coded_run[1].decode(coded_run[1].encode(image))
  np.testing.assert_array_equal(Image.open(tmp_path / '0.png'), expected)


@pytest.mark.parametrize('with_context', [False, True])
def test_changed_bytes_are_one_error_each(
  with_context, coded_run, contextual, some_pictures
):
  """Whatever a file holds, its checksum mended, it is read or refused."""
  rng = np.random.default_rng(0)
  coder = contextual if with_context else coded_run[1]
  image = np.asarray(Image.open(some_pictures / '1.png'))
  frame = container.unpack(coder.encode(image))
  seen = set()
  for _ in range(200):
    payload = bytearray(frame.payload)
    for _ in range(rng.integers(1, 6)):
      payload[rng.integers(len(payload))] = rng.integers(256)
    cut = rng.integers(len(payload) + 1) if rng.random() < 0.3 else None
    sides = rng.integers(1, [64, 64] if rng.random() < 0.5 else [2**21, 2**21])
    changed = frame._replace(
      payload=bytes(payload[:cut]), height=int(sides[0]), width=int(sides[1])
    )
    try:
      codes, height, width = coder.codec.read(container.pack(changed))
    except InputError as error:
      seen.add(str(error).split(':')[0])
      continue
    assert codes.atoms.size < 100 * (len(payload) + 100)
    assert (height, width) == tuple(sides)
  assert any('damaged' in line for line in seen)


def test_choices_are_all_that_flags_name():
  flags = {'S': [2], 'bits': [], 'price': [None, 0.5], 'step': [0.1]}
  assert codecs.choices_of(flags) == [
    Choice({'S': 2, 'step': 0.1}),
    Choice({'S': 2, 'price': 0.5, 'step': 0.1}),
  ]
