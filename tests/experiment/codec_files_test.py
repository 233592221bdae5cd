"""Images to files and back, by a model of a few steps; its curve."""

import json
import os
import shutil
import threading
import types

import numpy as np
import pytest
from PIL import Image

from lasers_jax.cli import codec
from lasers_jax.codec.model import ModelCodec
from lasers_jax.errors import InputError
from lasers_jax.evaluation import bjontegaard, rate_distortion
from lasers_jax.experiment import codec_files, codecs, loading
from lasers_jax.experiment.codecs import Choice
from lasers_jax.metrics import similarity
from lasers_jax.metrics.registry import ALWAYS, Metrics
from lasers_jax.report import rate_distortion_curve

pytest.importorskip('constriction')
pytestmark = pytest.mark.slow


def test_info_needs_no_model(some_files, capsys):
  codec_files.print_info([str(some_files / '1.lz')])
  size = os.path.getsize(some_files / '1.lz')
  out = capsys.readouterr().out
  assert '17x31 pixels' in out
  assert f'{size} bytes' in out
  assert f'{8 * size / 17 / 31:.4g} bits per pixel' in out


def test_other_pictures_change_no_file(
  coded_run, some_pictures, some_files, tmp_path
):
  some = [str(some_pictures / f'{i}.png') for i in (1, 0)]
  codec_files.encode_files(coded_run[0], some, str(tmp_path))
  for i in (1, 0):
    again = (tmp_path / f'{i}.lz').read_bytes()
    assert again == (some_files / f'{i}.lz').read_bytes()


def test_an_interrupted_run_leaves_no_half_file(
  coded_run, some_pictures, tmp_path, monkeypatch
):
  def interrupted(self, image, search):
    raise KeyboardInterrupt

  monkeypatch.setattr(ModelCodec, 'encode', interrupted)
  with pytest.raises(KeyboardInterrupt):
    codec_files.encode_files(
      coded_run[0], [str(some_pictures / '0.png')], str(tmp_path)
    )
  assert os.listdir(tmp_path) == []


def test_the_first_of_two_states_wins(
  copied_run, some_pictures, tmp_path, monkeypatch
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
  picture, faults = str(some_pictures / '0.png'), []

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


def test_a_bar_shows_how_far_it_is(
  coded_run, some_pictures, tmp_path, monkeypatch
):
  shown = []

  def bar(items, **settings):
    shown.append((len(items), settings['unit']))
    return items

  monkeypatch.setattr(codec_files, 'tqdm', bar)
  pictures = sorted(map(str, some_pictures.iterdir()))
  codec_files.encode_files(coded_run[0], pictures, str(tmp_path))
  assert shown == [(3, 'image')]


def test_a_damaged_file_is_named(coded_run, some_files, tmp_path):
  bad = tmp_path / 'bad.lz'
  bad.write_bytes((some_files / '1.lz').read_bytes()[:-1])
  with pytest.raises(InputError, match='bad.lz: the file is damaged'):
    codec_files.decode_files(coded_run[0], [str(bad)], str(tmp_path))
  with pytest.raises(InputError, match='none.lz: cannot be read: No such file'):
    codec_files.print_info([str(tmp_path / 'none.lz')])


def test_what_is_no_picture_is_named(coded_run, some_files, tmp_path):
  with pytest.raises(InputError, match='1.lz: no image'):
    codec_files.encode_files(
      coded_run[0], [str(some_files / '1.lz')], str(tmp_path)
    )


@pytest.mark.parametrize('kind', ['folder', 'empty', 'huge', 'cut', 'missing'])
def test_pictures_that_are_none_are_one_line(
  kind, coded_run, some_pictures, tmp_path, monkeypatch
):
  path = tmp_path / 'x.png'
  if kind == 'folder':
    path.mkdir()
  elif kind == 'huge':
    Image.new('1', (100, 100)).save(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
  elif kind != 'missing':
    whole = (some_pictures / '0.png').read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if kind == 'cut' else b'')
  with pytest.raises(InputError, match='x.png: no image: ') as error:
    codec_files.encode_files(coded_run[0], [str(path)], str(tmp_path / 'out'))
  assert '\n' not in str(error.value)
  remedy = 'no image: a folder; name its files, as FOLDER/*.png'
  assert (remedy in str(error.value)) == (kind == 'folder')


@pytest.mark.parametrize('kind', ['folder', 'empty', 'picture', 'missing'])
def test_files_that_are_none_are_one_line(
  kind, coded_run, some_pictures, tmp_path
):
  path = tmp_path / 'x.lz'
  if kind == 'folder':
    path.mkdir()
  elif kind != 'missing':
    picture = (some_pictures / '0.png').read_bytes()
    path.write_bytes(picture if kind == 'picture' else b'')
  for act in (
    lambda: codec_files.decode_files(
      coded_run[0], [str(path)], str(tmp_path / 'out')
    ),
    lambda: codec_files.print_info([str(path)]),
  ):
    with pytest.raises(InputError, match='x.lz: (not a|cannot be read: )'):
      act()


def test_a_folder_that_cannot_be_written_is_known_first(
  coded_run, some_pictures, some_files, tmp_path, monkeypatch
):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'out' / '0.lz').mkdir(parents=True)
  (tmp_path / 'out' / '0.png').mkdir(parents=True)
  picture, code = [str(some_pictures / '0.png')], [str(some_files / '0.lz')]
  for act, some in (
    (codec_files.encode_files, picture),
    (codec_files.decode_files, code),
  ):
    # An output that is a some_pictures is found when it is written.
    with pytest.raises(InputError, match=r'out/0.* cannot be written: Is a d'):
      act(coded_run[0], some, str(tmp_path / 'out'))
    with monkeypatch.context() as patch:
      patch.setattr(codecs, 'load_kept', None)  # not reached
      patch.setattr(codecs, 'load_state', None)
      with pytest.raises(InputError, match='file/a cannot be written: Not a d'):
        act(coded_run[0], some, str(tmp_path / 'file' / 'a'))


def test_names_that_are_no_utf8(coded_run, some_pictures, tmp_path, capsys):
  name = os.fsdecode(b'\xff')
  shutil.copy(some_pictures / '0.png', tmp_path / f'{name}.png')
  codec_files.encode_files(
    coded_run[0], [str(tmp_path / f'{name}.png')], str(tmp_path)
  )
  codec_files.decode_files(
    coded_run[0], [str(tmp_path / f'{name}.lz')], str(tmp_path / 'out')
  )
  assert os.listdir(tmp_path / 'out') == [f'{name}.png']
  assert '1 image\n' in capsys.readouterr().out


def test_two_pictures_of_one_name(coded_run):
  with pytest.raises(InputError, match='a/x.png and b/x.jpg would both be'):
    codec_files.encode_files(coded_run[0], ['a/x.png', 'b/x.jpg'], 'nowhere')


@pytest.mark.parametrize(
  'choice',
  [
    Choice({'S': 1}),
    Choice({'coefficient_bits': 4}, 'mu_law'),
    Choice({'coefficient_bits': 2, 'pursuit': 'rounded'}),
  ],
)
def test_a_model_encodes_otherwise_than_it_was_trained(
  choice, coded_run, some_pictures, tmp_path
):
  trained, picture = coded_run[0], str(some_pictures / '0.png')
  codec_files.encode_files(trained, [picture], str(tmp_path), choice)
  codec_files.decode_files(trained, [str(tmp_path / '0.lz')], str(tmp_path))
  other = trained.encoder(choice)
  assert other.codec.model != coded_run[1].codec.model
  image = np.asarray(Image.open(picture))
  data = (tmp_path / '0.lz').read_bytes()
  assert data == other.encode(image)
  assert len(data) < len(coded_run[1].encode(image))
  codes, *_ = other.codec.read(data)
  assert codes.atoms.shape[-1] == choice.changes.get('S', 2)
  levels = len(other.state.levels)
  assert levels == 2 ** choice.changes.get('coefficient_bits', 8)
  assert codes.coefficients.max() < levels
  expected = other.decode(data)
  np.testing.assert_array_equal(Image.open(tmp_path / '0.png'), expected)


@pytest.mark.parametrize('words', [[], ['encode', 'a.png'], ['sing', 'a', 'b']])
def test_how_it_is_called(words, monkeypatch):
  monkeypatch.setattr(codec.program, 'set_up_jax', lambda: None)
  with pytest.raises(InputError, match=r'lasers-jax codec encode\|decode'):
    codec.main(words)


@pytest.mark.parametrize(
  'search, message',
  [
    ([0, 8], 'encode takes one --S, .* --search$'),
    ([], 'encode takes one --S, .* --search$'),
    ([8], 'a search requires a price of bits'),
  ],
)
def test_encode_takes_one_search(search, message, coded_run, monkeypatch):
  unset = 'S coefficient_bits quantizer_step price pursuit context prior'
  unset += ' degradation masks data side'
  given = dict.fromkeys(unset.split())
  given |= {'model': coded_run[0].path, 'levels': 'lloyd', 'search': search}
  monkeypatch.setattr(codec.flags, 'FLAGS', types.SimpleNamespace(**given))
  monkeypatch.setattr(codec.program, 'set_up_jax', lambda: None)
  with pytest.raises(InputError, match=message):
    codec.main(['encode', 'a.png', 'b'])


@pytest.mark.parametrize('word', ['gs:/bucket/a', 's3:a', 'http://b/a'])
def test_words_that_are_no_address_make_no_folder(word, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(codec.program, 'set_up_jax', lambda: None)
  with pytest.raises(InputError, match=f'{word} is (no|an) address'):
    codec.main(['encode', 'a.png', word])
  assert not list(tmp_path.iterdir())


def test_a_curve_beside_other_codecs(
  coded_run, some_pictures, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    rate_distortion, 'CLASSICAL', {'JPEG': (10, 90), 'AVIF': (50,)}
  )
  files = [str(some_pictures / '0.png'), str(some_pictures / '1.png')]
  choices = codecs.choices_of({'S': [1, 2]})
  codec_files.draw_curve(coded_run[0], files, str(tmp_path), choices, ALWAYS)
  found = json.loads((tmp_path / 'curve.json').read_text())
  assert [row['codec'] for row in found['rows']] == [
    'JPEG',
    'JPEG',
    'AVIF',
    'run',
    'run',
  ]
  for row, choice in zip(found['rows'][3:], choices, strict=True):
    coder = coded_run[0].encoder(choice)
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
  above = rate_distortion_curve.above(found['rows'], 'JPEG')
  assert [row['above']['JPEG'] for row in found['rows']] == above
  rates = bjontegaard.against(found['rows'], ['JPEG', 'AVIF'])
  assert found['rates'] == rates
  assert '\n| codec | bits against JPEG | bits against AVIF |\n' in table


def test_a_curve_beside_codecs_that_were_measured_elsewhere(
  coded_run, some_pictures, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(rate_distortion, 'CLASSICAL', {'JPEG': (10, 90)})
  jpeg = [
    rate_distortion.measure(coder, [np.asarray(Image.open(file))])
    for coder in rate_distortion.classical()
    for file in [some_pictures / '0.png']
  ]
  rows = [
    {
      'codec': 'theirs',
      'bits_per_pixel': 0.9 * row['bits_per_pixel'],
      'psnr': row['psnr'],
    }
    for row in jpeg
  ]
  (tmp_path / 'theirs.json').write_text(json.dumps({'rows': rows}))
  drawn = []
  monkeypatch.setattr(
    rate_distortion_curve, 'plot', lambda *args: drawn.append(args)
  )
  curve = [str(some_pictures / '0.png')], str(tmp_path), [Choice()], ALWAYS
  beside = [str(tmp_path / 'theirs.json')]
  codec_files.draw_curve(coded_run[0], *curve, beside)
  found = json.loads((tmp_path / 'curve.json').read_text())
  assert found['elsewhere'] == drawn[0][2] == rows
  *_, last = found['rates']
  assert last['codec'] == 'theirs'
  assert last['others']['JPEG'] == pytest.approx(-0.1)
  assert '\n| theirs | -10.0 % |\n' in capsys.readouterr().out
  for text in '{}', '[', '{"rows": [{"codec": "a"}]}', '{"rows": 3}':
    (tmp_path / 'theirs.json').write_text(text)
    with pytest.raises(InputError, match='theirs.json has no rows of codecs'):
      codec_files.draw_curve(coded_run[0], *curve, beside)


def test_codecs_of_elsewhere_are_drawn_where_there_is_room(tmp_path):
  def rows(codec, *points):
    return [
      {'codec': codec, 'bits_per_pixel': x, 'psnr': {'mean': y}}
      for x, y in points
    ]

  ours = rows('ours', (0.1, 25), (0.5, 30))
  for row in ours:
    row['ssim'] = {'mean': 0.5}
  others = rows('a', (0.2, 28), (5, 60)) + rows('b', (0.2, 26), (0.4, 30))
  others[0]['ssim'] = 0.9  # nobody knows of what
  for name, more in ('alone', ()), ('beside', others):
    rate_distortion_curve.plot(ours, str(tmp_path / name), more)
  alone, beside = (
    np.asarray(Image.open(tmp_path / name), int) for name in ('alone', 'beside')
  )
  assert alone.shape == beside.shape
  changed = (alone != beside).any(axis=2)
  half = changed.shape[1] // 2
  assert changed[:, :half].mean() > 0.001  # PSNR
  # Axes are those of what was measured here; of SSIM nothing is known.
  assert changed[:, half:].mean() < 1e-4


def test_a_curve_that_cannot_be_drawn_is_in_numbers(
  coded_run, some_pictures, tmp_path, monkeypatch, capsys, log
):
  def fail(*_):
    raise RuntimeError('no fonts')

  monkeypatch.setattr(rate_distortion, 'CLASSICAL', {'JPEG': (10,)})
  monkeypatch.setattr(rate_distortion_curve, 'plot', fail)
  picture = [str(some_pictures / '0.png')]
  codec_files.draw_curve(
    coded_run[0], picture, str(tmp_path), [Choice()], ALWAYS
  )
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
