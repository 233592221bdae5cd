"""codec.py: pictures to files and back, by a model of a few steps."""

import functools
import json
import os
import shutil
import threading

import jax
import numpy as np
import pytest
from PIL import Image

from lasers_jax import inference
from lasers_jax.cli import codec
from lasers_jax.codec import State, container, context, load, save
from lasers_jax.codec.model import (
  LEVELS,
  ModelCodec,
  fit_levels,
  fit_tables,
  with_levels,
)
from lasers_jax.core.sharding import make_mesh
from lasers_jax.errors import InputError
from lasers_jax.evaluation import rate_distortion
from lasers_jax.experiment import codec_files, codecs, loading, settings
from lasers_jax.experiment.codecs import Choice
from lasers_jax.metrics import similarity
from lasers_jax.metrics.registry import ALWAYS, Metrics
from lasers_jax.report import rate_distortion_curve
from tests import tiny

pytest.importorskip('constriction')
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def model(tiny_run, tmp_path_factory):
  """The finished run, read, with its codes counted."""
  path = tmp_path_factory.mktemp('model') / 'run'
  shutil.copytree(tiny_run.workdir, path)
  trained = loading.load(path)
  return trained, trained.encoder()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Pictures of sizes that the factor divides and does not."""
  place, rng = tmp_path_factory.mktemp('some'), np.random.default_rng(3)
  for i, size in enumerate([(16, 16), (17, 31), (1, 1)]):
    array = rng.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(array).save(place / f'{i}.png')
  return place


@pytest.fixture(scope='module')
def files(model, folder, tmp_path_factory):
  written = tmp_path_factory.mktemp('files')
  pictures = sorted(map(str, folder.iterdir()))
  codec_files.encode_files(model[0], pictures, str(written))
  return written


def test_decoding_gives_the_codes_that_were_encoded(model, folder, files):
  for i in range(3):
    image = np.asarray(Image.open(folder / f'{i}.png'))
    h, w = image.shape[:2]
    codes = model[1].codes_of(image)
    data = (files / f'{i}.lz').read_bytes()
    found, height, width = model[1].codec.read(data)
    assert (height, width) == (h, w)
    jax.tree.map(np.testing.assert_array_equal, found, codes)


def test_pictures_come_back_as_the_model_decodes_them(model, folder, files):
  image = np.asarray(Image.open(folder / '0.png'))
  scaled = image[None] / np.float32(255)
  expected = model[1].model.apply(model[1].variables, scaled).images
  expected = np.clip(np.asarray(expected[0]), 0, 1) * 255
  found = model[1].decode((files / '0.lz').read_bytes())
  assert found.shape == image.shape
  assert found.dtype == np.uint8
  assert np.abs(found - expected).max() <= 0.51


def test_pictures_of_near_sizes_share_programs(model):
  coder, rng = model[1], np.random.default_rng(5)
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


def test_another_process_with_one_device_reads_the_same(model, files, tmp_path):
  path = str(files / '1.lz')
  process = tiny.start(
    'codec.py',
    'decode',
    f'--model={model[0].path}',
    path,
    str(tmp_path),
    devices=1,
  )
  out, log = process.communicate(timeout=240)
  assert process.returncode == 0, log
  assert out == '1 images\n'
  found = np.asarray(Image.open(tmp_path / '1.png'))
  expected = model[1].decode((files / '1.lz').read_bytes())
  np.testing.assert_array_equal(found, expected)


def test_info_needs_no_model(files, capsys):
  codec_files.print_info([str(files / '1.lz')])
  size = os.path.getsize(files / '1.lz')
  out = capsys.readouterr().out
  assert '17x31 pixels' in out
  assert f'{size} bytes' in out
  assert f'{8 * size / 17 / 31:.4g} bits per pixel' in out


def test_other_pictures_change_no_file(model, folder, files, tmp_path):
  some = [str(folder / f'{i}.png') for i in (1, 0)]
  codec_files.encode_files(model[0], some, str(tmp_path))
  for i in (1, 0):
    again = (tmp_path / f'{i}.lz').read_bytes()
    assert again == (files / f'{i}.lz').read_bytes()


def test_an_interrupted_run_leaves_no_half_file(
  model, folder, tmp_path, monkeypatch
):
  def interrupted(self, image):
    raise KeyboardInterrupt

  monkeypatch.setattr(ModelCodec, 'encode', interrupted)
  with pytest.raises(KeyboardInterrupt):
    codec_files.encode_files(model[0], [str(folder / '0.png')], str(tmp_path))
  assert os.listdir(tmp_path) == []


def test_two_processes_at_once_write_the_same_files(
  model, copied_run, folder, files
):
  """Both count the codes, and keep what they found."""
  started = [
    tiny.start(
      'codec.py', 'encode', f'--model={copied_run}',
      *map(str, sorted(folder.iterdir())), str(copied_run / 'files'),
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
    assert data == (files / f'{i}.lz').read_bytes()


def test_the_first_of_two_states_wins(
  copied_run, folder, tmp_path, monkeypatch
):
  """Even if two count otherwise, as on other devices: both can be decoded."""
  begun, fit, turns = (
    threading.Barrier(2, timeout=60),
    codecs.fit_tables,
    [1, 2],
  )

  def other(*args):
    tables, more = fit(*args), turns.pop()
    begun.wait()  # both, with nothing there
    return {name: x + more for name, x in tables.items()}

  monkeypatch.setattr(codecs, 'fit_tables', other)
  picture, faults = str(folder / '0.png'), []

  def encode(target):
    try:
      model = loading.load(copied_run)
      codec_files.encode_files(model, [picture], str(tmp_path / target))
    except BaseException as error:
      faults.append(error)

  threads = [threading.Thread(target=encode, args=x) for x in 'ab']
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not faults
  assert not turns
  for target in 'ab':
    written = tmp_path / target
    model = loading.load(copied_run)
    codec_files.decode_files(model, [str(written / '0.lz')], str(written))
  files = [(tmp_path / target / '0.lz').read_bytes() for target in 'ab']
  assert files[0] == files[1]


def test_a_bar_shows_how_far_it_is(model, folder, tmp_path, monkeypatch):
  shown = []

  def bar(items, **settings):
    shown.append((len(items), settings['unit']))
    return items

  monkeypatch.setattr(codec_files, 'tqdm', bar)
  pictures = sorted(map(str, folder.iterdir()))
  codec_files.encode_files(model[0], pictures, str(tmp_path))
  assert shown == [(3, 'image')]


def test_a_damaged_file_is_named(model, files, tmp_path):
  bad = tmp_path / 'bad.lz'
  bad.write_bytes((files / '1.lz').read_bytes()[:-1])
  with pytest.raises(InputError, match='bad.lz: the file is damaged'):
    codec_files.decode_files(model[0], [str(bad)], str(tmp_path))
  with pytest.raises(InputError, match='none.lz: cannot be read: No such file'):
    codec_files.print_info([str(tmp_path / 'none.lz')])


def test_what_is_no_picture_is_named(model, files, tmp_path):
  with pytest.raises(InputError, match='1.lz: no image'):
    codec_files.encode_files(model[0], [str(files / '1.lz')], str(tmp_path))


@pytest.mark.parametrize('kind', ['folder', 'empty', 'huge', 'cut', 'missing'])
def test_pictures_that_are_none_are_one_line(
  kind, model, folder, tmp_path, monkeypatch
):
  path = tmp_path / 'x.png'
  if kind == 'folder':
    path.mkdir()
  elif kind == 'huge':
    Image.new('1', (100, 100)).save(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
  elif kind != 'missing':
    whole = (folder / '0.png').read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if kind == 'cut' else b'')
  with pytest.raises(InputError, match='x.png: no image: ') as error:
    codec_files.encode_files(model[0], [str(path)], str(tmp_path / 'out'))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('kind', ['folder', 'empty', 'picture', 'missing'])
def test_files_that_are_none_are_one_line(kind, model, folder, tmp_path):
  path = tmp_path / 'x.lz'
  if kind == 'folder':
    path.mkdir()
  elif kind != 'missing':
    picture = (folder / '0.png').read_bytes()
    path.write_bytes(picture if kind == 'picture' else b'')
  for act in (
    lambda: codec_files.decode_files(
      model[0], [str(path)], str(tmp_path / 'out')
    ),
    lambda: codec_files.print_info([str(path)]),
  ):
    with pytest.raises(InputError, match='x.lz: (not a|cannot be read: )'):
      act()


def test_a_folder_that_cannot_be_written_is_known_first(
  model, folder, files, tmp_path, monkeypatch
):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'out' / '0.lz').mkdir(parents=True)
  (tmp_path / 'out' / '0.png').mkdir(parents=True)
  picture, code = [str(folder / '0.png')], [str(files / '0.lz')]
  for act, some in (
    (codec_files.encode_files, picture),
    (codec_files.decode_files, code),
  ):
    # An output that is a folder is found when it is written.
    with pytest.raises(InputError, match=r'out/0.* cannot be written: Is a d'):
      act(model[0], some, str(tmp_path / 'out'))
    with monkeypatch.context() as patch:
      patch.setattr(codecs, 'load_kept', None)  # not reached
      patch.setattr(codecs, 'load_state', None)
      with pytest.raises(InputError, match='file/a cannot be written: Not a d'):
        act(model[0], some, str(tmp_path / 'file' / 'a'))


def test_names_that_are_no_utf8(model, folder, tmp_path, capsys):
  name = os.fsdecode(b'\xff')
  shutil.copy(folder / '0.png', tmp_path / f'{name}.png')
  codec_files.encode_files(
    model[0], [str(tmp_path / f'{name}.png')], str(tmp_path)
  )
  codec_files.decode_files(
    model[0], [str(tmp_path / f'{name}.lz')], str(tmp_path / 'out')
  )
  assert os.listdir(tmp_path / 'out') == [f'{name}.png']
  assert '1 images' in capsys.readouterr().out


def test_two_pictures_of_one_name(model):
  with pytest.raises(InputError, match='a/x.png and b/x.jpg would both be'):
    codec_files.encode_files(model[0], ['a/x.png', 'b/x.jpg'], 'nowhere')


def test_a_file_of_another_model(model, files):
  frame = container.unpack((files / '0.lz').read_bytes())
  data = container.pack(frame._replace(model=b'abcd'))
  with pytest.raises(InputError, match='another model: 61626364 there'):
    model[1].decode(data)


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


def test_a_state_of_older_weights_is_replaced(model, copied_run):
  file = copied_run / 'codec.npz'
  save(str(file), State('other', {}, {'atoms': np.ones((1, 16), np.int64)}))
  assert loading.load(copied_run).encoder().state.weights != 'other'
  assert load(str(file)).hash() == model[1].state.hash()


@pytest.mark.parametrize('kind', ['choice', 'tables', 'levels'])
def test_a_state_that_does_not_fit_is_named(kind, model, copied_run):
  file, state = copied_run / 'codec.npz', model[1].state
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


@pytest.mark.parametrize(
  'choice',
  [
    Choice({'S': 1}),
    Choice({'coefficient_bits': 4}, 'mu_law'),
    Choice({'coefficient_bits': 2, 'pursuit': 'rounded'}),
    Choice({'coefficient_bits': 2, 'pursuit': 'rounded', 'residual_norm': 0.5}),
  ],
)
def test_a_model_encodes_otherwise_than_it_was_trained(
  choice, model, folder, tmp_path
):
  trained, picture = model[0], str(folder / '0.png')
  codec_files.encode_files(trained, [picture], str(tmp_path), choice)
  codec_files.decode_files(trained, [str(tmp_path / '0.lz')], str(tmp_path))
  other = trained.encoder(choice)
  assert other.codec.model != model[1].codec.model
  image = np.asarray(Image.open(picture))
  data = (tmp_path / '0.lz').read_bytes()
  assert data == other.encode(image)
  assert len(data) < len(model[1].encode(image))
  codes, *_ = other.codec.read(data)
  assert codes.atoms.shape[-1] == choice.changes.get('S', 2)
  levels = len(other.state.levels)
  assert levels == 2 ** choice.changes.get('coefficient_bits', 8)
  assert codes.coefficients.max() < levels
  expected = other.decode(data)
  np.testing.assert_array_equal(Image.open(tmp_path / '0.png'), expected)


def test_levels_are_fitted_to_images_of_any_size(model):
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

  coder = model[1]
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


def test_each_choice_has_a_file_of_its_own():
  assert Choice().file == 'codec.npz'
  few = {'coefficient_bits': 6, 'S': 3}
  assert Choice(few).file == 'codec-S3-coefficient_bits6-lloyd.npz'
  assert Choice(context=True).file == 'codec-context.npz'
  assert Choice({'S': 3}, context=True).file == 'codec-S3-lloyd-context.npz'
  assert Choice({'step': 0.2}).file == 'codec-step0.2.npz'


@pytest.fixture(scope='module')
def contextual(model):
  """The codec of the model with a context model of a few steps."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(context, 'STEPS', 5)
    return model[0].encoder(Choice(context=True))


def test_a_context_model_changes_the_file_and_not_the_codes(
  model, contextual, folder, tmp_path
):
  image = np.asarray(Image.open(folder / '0.png'))
  data = contextual.encode(image)
  assert data != model[1].encode(image)
  (tmp_path / '0.lz').write_bytes(data)
  codec_files.decode_files(model[0], [str(tmp_path / '0.lz')], str(tmp_path))
  expected = model[1].decode(model[1].encode(image))
  np.testing.assert_array_equal(Image.open(tmp_path / '0.png'), expected)


@pytest.mark.parametrize('words', [[], ['encode', 'a.png'], ['sing', 'a', 'b']])
def test_how_it_is_called(words, monkeypatch):
  monkeypatch.setattr(codec.program, 'set_up_jax', lambda: None)
  with pytest.raises(InputError, match='python codec.py encode|decode'):
    codec.main(words)


@pytest.mark.parametrize('with_context', [False, True])
def test_changed_bytes_are_one_error_each(
  with_context, model, contextual, folder
):
  """Whatever a file holds, its checksum mended, it is read or refused."""
  rng = np.random.default_rng(0)
  coder = contextual if with_context else model[1]
  image = np.asarray(Image.open(folder / '1.png'))
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
  flags = {'S': [2], 'bits': [], 'residual_norm': [None, 0.5], 'step': [0.1]}
  assert codecs.choices_of(flags) == [
    Choice({'S': 2, 'step': 0.1}),
    Choice({'S': 2, 'residual_norm': 0.5, 'step': 0.1}),
  ]


def test_a_curve_beside_other_codecs(model, folder, tmp_path, monkeypatch):
  monkeypatch.setattr(
    rate_distortion, 'CLASSICAL', {'JPEG': (10, 90), 'AVIF': (50,)}
  )
  files = [str(folder / '0.png'), str(folder / '1.png')]
  choices = codecs.choices_of({'S': [1, 2]})
  codec_files.draw_curve(model[0], files, str(tmp_path), choices, ALWAYS)
  found = json.loads((tmp_path / 'curve.json').read_text())
  assert [row['codec'] for row in found['rows']] == [
    'JPEG',
    'JPEG',
    'AVIF',
    'run',
    'run',
  ]
  for row, choice in zip(found['rows'][3:], choices, strict=True):
    coder = model[0].encoder(choice)
    images = [np.asarray(Image.open(file)) for file in files]
    data = [coder.encode(image) for image in images]
    assert row['bytes'] == sum(map(len, data))
    pixels = sum(image[..., 0].size for image in images)
    assert row['bits_per_pixel'] == pytest.approx(8 * row['bytes'] / pixels)
    psnr = [
      float(similarity.psnr(image[None], coder.decode(x)[None])[0])
      for image, x in zip(images, data, strict=True)
    ]
    assert row['psnr']['mean'] == pytest.approx(np.mean(psnr))
  table = (tmp_path / 'curve.md').read_text('utf-8')
  assert 'dB above JPEG' in table
  assert '| run | S=1 |' in table
  assert np.asarray(Image.open(tmp_path / 'curve.png')).shape[1] > 1000


def test_a_curve_that_cannot_be_drawn_is_in_numbers(
  model, folder, tmp_path, monkeypatch, capsys, log
):
  def fail(*_):
    raise RuntimeError('no fonts')

  monkeypatch.setattr(rate_distortion, 'CLASSICAL', {'JPEG': (10,)})
  monkeypatch.setattr(rate_distortion_curve, 'plot', fail)
  picture = [str(folder / '0.png')]
  codec_files.draw_curve(model[0], picture, str(tmp_path), [Choice()], ALWAYS)
  found = json.loads(
    (tmp_path / 'curve.json').read_text(), parse_constant=pytest.fail
  )
  assert [row['psnr']['low'] for row in found['rows']] == [None, None]
  assert capsys.readouterr().out == (tmp_path / 'curve.md').read_text('utf-8')
  assert log[-1] == 'no curve.png: no fonts'


def test_a_curve_has_no_metrics_of_sets(tmp_path):
  sets = Metrics({}, {'fd-vgg16': None})
  with pytest.raises(InputError, match='single images, not fd-vgg16'):
    codec_files.draw_curve('', [], str(tmp_path), [], sets)
