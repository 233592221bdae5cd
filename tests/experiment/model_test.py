"""A trained model as a value: what it makes of images, codes and bytes."""

import dataclasses
import os

import jax
import numpy as np
import pytest
from PIL import Image

from lasers_jax.bottlenecks import KL, Lista
from lasers_jax.codec.model import ModelCodec
from lasers_jax.errors import InputError
from lasers_jax.experiment import codecs, evaluate, loading
from lasers_jax.experiment.loading import load
from tests import tiny


@pytest.fixture(scope='module')
def model(tiny_run):
  return load(tiny_run.workdir)


def pictures(count=5, height=17, width=31):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def test_codes_and_latents_are_arrays_of_the_batch(model):
  codes, z = model.encode(pictures()), model.latents(pictures())
  assert all(type(x) is np.ndarray for x in jax.tree.leaves(codes))
  assert codes.atoms.shape == codes.coefficients.shape == (5, 9, 16, 2)
  assert z.shape == (5, 9, 16, 4)
  assert z.dtype == np.float32


def test_decoding_codes_or_latents_is_the_reconstruction(model):
  images = pictures()
  made = model.reconstruct(images)
  assert made.shape == images.shape
  assert made.dtype == np.uint8
  size = images.shape[1:3]
  decoded = model.decode(model.encode(images), size)
  np.testing.assert_array_equal(decoded, made)
  np.testing.assert_array_equal(
    model.decode_latents(model.latents(images), size), made
  )
  whole = model.decode(model.encode(images))
  assert whole.shape == (5, 18, 32, 3)  # as large as the codes


def test_it_equals_evaluation_in_every_pixel(model, tmp_path):
  evaluate.measure(model, dump=str(tmp_path))
  (other,) = {x.name for x in tmp_path.iterdir()} - {'original'}
  originals, expected = (
    np.stack([np.asarray(Image.open(folder / f'{i}.png')) for i in range(10)])
    for folder in (tmp_path / 'original', tmp_path / other)
  )
  np.testing.assert_array_equal(model.reconstruct(originals), expected)


def test_a_single_image_comes_back_single(model):
  image, batch = pictures()[2], pictures()
  codes = model.encode(image)
  assert codes.atoms.shape == (9, 16, 2)
  assert model.latents(image).shape == (9, 16, 4)
  made = model.decode(codes, image.shape[:2])
  assert made.shape == image.shape
  np.testing.assert_array_equal(made, model.reconstruct(image))
  np.testing.assert_array_equal(made, model.reconstruct(batch)[2])
  z = model.latents(image)
  np.testing.assert_array_equal(model.decode_latents(z, (17, 31)), made)


def test_floats_are_the_same_images(model):
  images = pictures()
  for dtype in np.float32, np.float64:
    jax.tree.map(
      np.testing.assert_array_equal,
      model.encode(images),
      model.encode((images / 255).astype(dtype)),
    )
  np.testing.assert_array_equal(
    model.reconstruct(jax.numpy.asarray(images)), model.reconstruct(images)
  )


def test_large_batches_are_split(model, monkeypatch):
  images = pictures(19)
  expected = model.reconstruct(images), model.encode(images)
  monkeypatch.setattr('lasers_jax.inference.PIXELS', 1)  # one a device
  jax.tree.map(
    np.testing.assert_array_equal,
    (model.reconstruct(images), model.encode(images)),
    expected,
  )


GOOD = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
  ('images', 'said'),
  [
    (GOOD[..., 0][0], r'not \[8, 8\]: a grey image needs its channel three'),
    (GOOD[..., :1], r'not \[2, 8, 8, 1\]: a grey image needs'),
    (np.zeros((8, 8, 4), np.uint8), 'leave out the fourth channel'),
    (GOOD.transpose(0, 3, 1, 2), 'channels come last'),
    (GOOD[0, 0, 0], r'not \[3\]$'),
    (GOOD[None], r'not \[1, 2, 8, 8, 3\]$'),
    (GOOD[:0], r'\[0, 8, 8, 3\] hold no pixel'),
    (GOOD[:, :0], 'hold no pixel'),
    (GOOD.astype(int), r'uint8, or float in \[0, 1\], not int64'),
    (GOOD > 0, r'uint8, or float in \[0, 1\], not bool'),
    (np.full((8, 8, 3), 255.0), r'must be in \[0, 1\], and reach from 255'),
    (np.full((8, 8, 3), -0.1), r'must be in \[0, 1\], and reach from -0.1'),
    (np.full((8, 8, 3), np.nan), r'must be in \[0, 1\], and hold NaN'),
    ([GOOD[0], GOOD[0, :4]], 'must be of one size'),
  ],
)
@pytest.mark.parametrize('method', ['encode', 'latents', 'reconstruct'])
def test_what_is_no_image_is_one_line(model, method, images, said):
  with pytest.raises(InputError, match=said) as error:
    getattr(model, method)(images)
  assert '\n' not in str(error.value)


def test_codes_and_latents_that_cannot_be_decoded_are_one_line(model):
  codes = model.encode(GOOD)
  with pytest.raises(InputError, match='are 2 arrays of the ranks .* not .3.'):
    model.decode(codes.atoms[0])
  with pytest.raises(InputError, match='size 9x8 is not .* with 4x4 latents'):
    model.decode(codes, (9, 8))
  with pytest.raises(InputError, match=r'must be .* not \[2, 4, 4, 3\]'):
    model.decode_latents(np.zeros((2, 4, 4, 3)))


def test_bits_per_pixel(model):
  # 2 of 16 atoms and two coefficients of 8 bits for a site of 4 pixels.
  assert model.bits_per_pixel(16, 16) == (7 + 2 * 8) / 4
  assert model.bits_per_pixel(15, 16) == (7 + 2 * 8) / 4 * 16 / 15


def test_it_is_shown_in_one_line(model):
  text = repr(model)
  assert text == f"<TrainedModel '{model.path}': lasers, step {model.step}>"


def test_a_changed_copy_changes_nothing_else(model):
  fewer = model.with_(S=1)
  assert fewer.encode(GOOD).atoms.shape[-1] == 1
  assert model.encode(GOOD).atoms.shape[-1] == 2
  assert fewer.bits_per_pixel(16, 16) == (4 + 8) / 4
  assert fewer.weights == model.weights
  assert model.with_() is model
  with pytest.raises(InputError, match=r'bottleneck\.K cannot change after tr'):
    model.with_(K=8)
  for changes, line in (
    ({'network': {'channels': 8}}, 'the encoder cannot change'),
    ({'decoder': {'name': 'diffusion'}}, 'the decoder cannot change'),
    ({'bottleneck': {'learning': 'fixed'}}, 'bottleneck.learning cannot'),
  ):
    with pytest.raises(InputError, match=line):
      model.with_config(**changes)
  with pytest.raises(InputError, match=r'bottleneck.SS; did you mean .*\.S'):
    model.with_(SS=1)
  with pytest.raises(InputError, match='decoder.sampling: .* has no such'):
    model.with_sampling(steps=3)
  with pytest.raises(dataclasses.FrozenInstanceError):
    model.step = 3


def test_a_model_that_is_not_there_is_one_line(tmp_path, monkeypatch):
  with pytest.raises(InputError, match='is no workdir of a run and no exp'):
    load(tmp_path / 'none')
  monkeypatch.setattr(loading, 'NAMES', {'photos-lasers': str(tmp_path)})
  with pytest.raises(InputError, match='did you mean photos-lasers'):
    load('photo-lasers')
  with pytest.raises(InputError, match=f'{tmp_path} is no workdir of a run:'):
    load('photos-lasers')


def test_files_need_counted_codes(copied_run, tmp_path):
  pytest.importorskip('constriction')
  model, image = load(copied_run), pictures()[0]
  with pytest.raises(InputError) as error:
    model.compress(image)
  assert str(error.value) == (
    f'no codec.npz of these weights in {copied_run}: model.fit_codec() counts '
    'the codes of training images, and so does lasers-jax codec encode '
    f'--model={copied_run}'
  )
  model.fit_codec(tiny.images(8))
  data = model.compress(image)
  np.testing.assert_array_equal(
    model.decompress(data), model.reconstruct(image)
  )
  with pytest.raises(InputError, match='no codec-S1-lloyd.npz of these'):
    model.with_(S=1).compress(image)
  model.with_(S=1).fit_codec()
  less = model.with_(S=1).compress(image)
  assert len(less) < len(data)
  np.testing.assert_array_equal(  # The file says with how many atoms.
    model.decompress(less), model.with_(S=1).decompress(less)
  )
  with pytest.raises(InputError, match='one image uint8'):
    model.compress(pictures())


def test_codecs_are_built_once_and_follow_their_files(copied_run, monkeypatch):
  pytest.importorskip('constriction')
  built = []

  def build(*args):
    built.append(args)
    return ModelCodec(*args)

  monkeypatch.setattr('lasers_jax.experiment.model.ModelCodec', build)
  model, image = load(copied_run), pictures()[0]
  model.fit_codec(tiny.images(8))
  built.clear()
  files = [model.compress(image) for _ in range(3)]
  for data in files:
    model.decompress(data)
  assert len(built) == 2  # one that writes, one that reads
  model.with_config().compress(image)
  assert len(built) == 3
  os.remove(copied_run / 'codec.npz')
  np.testing.assert_array_equal(  # The file names what it was written with.
    model.decompress(files[0]), model.reconstruct(image)
  )
  with pytest.raises(InputError, match='no codec.npz of these weights'):
    model.compress(image)
  load(copied_run).fit_codec(tiny.images(3))
  assert model.compress(image) != files[0]


def test_a_continuous_code_has_no_file():
  for kind, said in (KL, 'KL has a continuous code'), (Lista, 'Lista has a'):
    error = codecs.no_state(kind(D=4), 'folder', codecs.AS_TRAINED)
    assert str(error).startswith(said)
    assert 'fit_codec' not in str(error)
