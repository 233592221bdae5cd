"""The code of one image, taken apart."""

import math
import shutil
import types

import jax
import numpy as np
import pytest
from PIL import Image
from skimage.data import chelsea

import lasers_jax as lj
from lasers_jax.cli import explore as command
from lasers_jax.core import sharding
from lasers_jax.errors import InputError
from lasers_jax.experiment import code_rates, exploring, part_pictures, settings
from lasers_jax.experiment.codecs import Choice
from lasers_jax.experiment.exploring import explore, write_page
from lasers_jax.experiment.model import TrainedModel
from tests import tiny
from tests.codec.meter import Meter

pytestmark = pytest.mark.slow

VQ = {'name': 'vq', 'K': 8}
WEIGHTS = {'pixel': 1.0, 'codebook': 1.0, 'commitment': 0.25}


@pytest.fixture(scope='module')
def image():
  """A picture whose sides are no multiples of the stride."""
  return tiny.images(1, seed=5)[0, :15, :13]


@pytest.fixture(scope='module')
def coded(coded_run, tmp_path_factory, image):
  """A model with a codec, without contexts, and what is found."""
  path = tmp_path_factory.mktemp('coded') / 'run'
  others = shutil.ignore_patterns('codec-*')  # of other tests
  shutil.copytree(coded_run[0].path, path, ignore=others)
  model = lj.load(path)
  return model, explore(model, image)


def built(pictures, bottleneck, weights=WEIGHTS, **sections):
  """A model as it is drawn."""
  given = {**tiny.config(pictures, bottleneck=bottleneck), **sections}
  given['loss'] = {'pixel': 'mse', 'weights': weights}
  experiment = settings.from_config(given)
  module, zeros = experiment.model, tiny.images(1) / np.float32(255)
  variables = jax.jit(module.init)(jax.random.key(0), zeros)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return TrainedModel(experiment, variables, given, mesh, 0, str(pictures))


def test_the_last_position_is_the_reconstruction(coded, tiny_run, image):
  for model, found in coded, (
    plain := lj.load(tiny_run.workdir), explore(plain, image)
  ):  # fmt: skip
    assert [x.used for x in found.stops] == [1, 2]
    assert found.start == 1
    last = found.stops[-1].image
    np.testing.assert_array_equal(last, model.reconstruct(image))
    error = np.mean((last / 255.0 - image / 255.0) ** 2)
    assert found.stops[-1].psnr == pytest.approx(-10 * math.log10(error))


def test_the_first_position_has_the_strongest_atom_alone(coded, image):
  model, found = coded
  codes = model.encode(image)
  bottleneck = model.module.bind(model.variables).bottleneck
  read = bottleneck.coefficients.read(codes.atoms, codes.coefficients)
  coefficients, atoms = np.asarray(read), np.asarray(bottleneck._atoms())
  strongest = np.abs(coefficients).argmax(axis=-1)[..., None]
  number = np.take_along_axis(codes.atoms, strongest, -1)[..., 0]
  amount = np.take_along_axis(coefficients, strongest, -1)
  mean = np.asarray(bottleneck.mean.value)
  latents = mean + amount * atoms.T[number]
  expected = model.decode_latents(latents, image.shape[:2])
  difference = found.stops[0].image.astype(int) - expected
  assert np.abs(difference).max() <= 1  # the order of sums
  assert np.abs(found.stops[0].image.astype(int) - image).max() > 1


def test_sites_have_the_codes_of_the_model(coded, image):
  model, found = coded
  codes, [code] = model.encode(image), found.codes
  np.testing.assert_array_equal(np.sort(code.indices), codes.atoms)
  assert np.all(np.diff(np.abs(code.amounts)) <= 0)
  assert (code.counts == 2).all()
  assert found.names == (('atom', 16),)
  assert found.added.every == 1
  counts = np.bincount(codes.atoms.ravel(), minlength=16)
  np.testing.assert_array_equal(found.use.counts, counts)
  assert np.all(np.diff(counts[found.use.numbers]) <= 0)
  assert len(found.use.pictures) == np.sum(counts > 0)


def test_bits_are_those_of_the_file_and_nominal_ones(coded, image):
  model, found = coded
  codec, [code] = model.encoder(), found.codes
  meter = Meter(codec.state.tables)
  sites = model.module.coded_sites(*image.shape[:2])
  model.module.bottleneck.transfer(meter, sites, model.encode(image))
  assert code.bits.sum() == pytest.approx(meter.bits)
  assert found.size == len(model.compress(image))
  n, b = math.prod(sites), 8
  for s, stop in enumerate(found.stops, 1):
    nominal = n * (math.ceil(math.log2(math.comb(16, s))) + s * b)
    assert stop.bits == pytest.approx(nominal, rel=0.1)
    assert not stop.is_file
  assert found.stops[-1].bits == pytest.approx(
    model.bits_per_pixel(*image.shape[:2]) * image[..., 0].size
  )
  assert found.nominal * n == pytest.approx(found.stops[-1].bits)


def test_without_a_codec_bits_are_nominal(tiny_run, image):
  found = explore(lj.load(tiny_run.workdir), image)
  assert found.size is None
  assert found.codes[0].bits is None


def test_what_an_atom_adds_is_what_the_image_loses_without_it(coded, image):
  model, found = coded
  parts, module = _parts(model, image), model.module
  signals = part_pictures.signals_of(parts)
  row, column, which = 3, 2, 1  # away from the edges of window and image

  @jax.jit
  def decoded(signals):
    def decode(bound, signals):
      return bound.decode_latent(bound.unpack(signals))

    return module.apply(model.variables, signals[None], method=decode)[0]

  less = signals.copy()
  index = parts.indices[row, column, which]
  less[row, column] -= parts.amounts[row, column, which] * parts.rows[index]
  change = np.asarray(decoded(signals) - decoded(less))
  number = found.added.firsts[row, column] + which
  peak = found.added.peaks[number]
  assert peak == pytest.approx(255 * np.abs(change).max(), rel=1e-2)
  picture = found.added.pictures[number] / 255 - 0.5
  side = picture.shape[0]
  first = 2 * row + 1 - side // 2, 2 * column + 1 - side // 2
  seen = np.s_[max(0, -first[0]) :, max(0, -first[1]) :]
  there = change[max(0, first[0]) :, max(0, first[1]) :]
  part = picture[seen]
  size = np.minimum(there.shape, part.shape)[:2]
  a, b = (x[: size[0], : size[1]] for x in (part, there))
  gained = np.clip(found.added.gain / 2 * b, -0.5, 0.5)
  np.testing.assert_allclose(a, gained, atol=0.01)


def _parts(model, image):
  return code_rates.rates(model, image).codes[0].parts


def test_a_code_of_zeros_has_no_pictures(coded, image):
  model, _ = coded
  parts = _parts(model, image)
  parts = parts._replace(amounts=0 * parts.amounts)
  arguments = model.module, model.variables, parts
  found = part_pictures.added(*arguments, 8)
  assert len(found.pictures) == 1  # of grey
  assert (found.pictures == 128).all()
  assert exploring._use(model, parts).counts.sum() == 0


def test_many_sites_share_the_pictures(coded, monkeypatch):
  model, _ = coded
  monkeypatch.setattr(part_pictures, 'MOST', 40)
  found = explore(model, tiny.images(1)[0]).added
  assert found.every == 2  # 64 sites of two atoms
  assert len(found.pictures) == 32
  assert set(found.firsts) == {
    (y, x) for y in range(0, 8, 2) for x in range(0, 8, 2)
  }


def test_large_images_are_cropped(coded, monkeypatch):
  model, _ = coded
  monkeypatch.setattr(exploring, 'LARGEST', 12)
  image = tiny.images(1)[0]
  found = explore(model, image)
  np.testing.assert_array_equal(found.image, image[2:14, 2:14])
  assert found.remarks == [
    'The image has 16 × 16 pixels; this is its middle, 12 × 12.'
  ]


def test_levels_come_in_their_order(pictures, image):
  inner = {**VQ, 'learning': 'loss'}
  model = built(pictures, {'name': 'residual', 'depth': 3, 'inner': inner})
  found = explore(model, image)
  assert [x.bits / x.used for x in found.stops] == [3 * 8 * 7] * 3
  codes = model.encode(image)
  indices = found.codes[0].indices
  for level in range(3):
    np.testing.assert_array_equal(indices[..., level] - 8 * level, codes[level])
  np.testing.assert_array_equal(found.stops[-1].image, model.reconstruct(image))


def test_kept_sites_alone_have_codes(pictures, image):
  bottleneck = {'name': 'mqvae', 'keep': 0.25, 'width': 16, 'blocks': 1}
  model = built(pictures, {**bottleneck, 'inner': VQ})
  found = explore(model, image)
  [code], codes = found.codes, model.encode(image)
  assert code.indices.shape == (8, 7, 1)
  kept = np.flatnonzero(code.counts)
  np.testing.assert_array_equal(kept, codes.positions)
  np.testing.assert_array_equal(
    code.indices.reshape(-1)[kept], codes.inner.ravel()
  )
  assert found.added is None
  assert found.slider == ''


def test_prices_are_real_files(monkeypatch):
  pytest.importorskip('constriction')
  for limit in 'ADDED', 'ALONE':  # pictures take most of the time
    monkeypatch.setattr(exploring, limit, 1)
  model, image = lj.load('photo-codec'), chelsea()[100:132, 120:160]
  found = explore(model, image)
  bits = [x.bits for x in found.stops]
  assert bits == sorted(bits)
  assert len(bits) == 6
  assert all(x.is_file for x in found.stops)
  names = {x.name: x for x in found.stops}
  trained = found.stops[found.start]
  assert trained.name == 'step 0.225, price 0.15'
  data = model.encoder(Choice(context=True)).encode(image)
  assert trained.bits == 8 * len(data)
  np.testing.assert_array_equal(trained.image, model.decompress(data))
  dear, usual = (names[f'step 0.4, price {x}'] for x in (0.6, 0.15))
  assert dear.bits < usual.bits
  for stop in found.stops:
    code = found.codes[stop.code]
    # A file has a header, and is padded to words.
    assert 0 < stop.bits - code.bits.sum() < 0.01 * stop.bits + 8 * 24
    assert code.indices.shape == (2, 3, 12)


@pytest.mark.parametrize(
  ('bottleneck', 'weights', 'said'),
  [
    ({'name': 'kl'}, {'pixel': 1.0, 'kl': 1.0}, 'KL has a continuous code: '),
    (
      {'name': 'entropy'},
      {'pixel': 1.0, 'rate': 1.0},
      'no codec.npz of these weights in .*: model.fit_codec',
    ),
  ],
)
def test_what_cannot_be_explored_is_one_line(
  pictures, image, bottleneck, weights, said
):
  model = built(pictures, bottleneck, weights)
  with pytest.raises(InputError, match=said) as error:
    explore(model, image)
  assert '\n' not in str(error.value)


def test_restorations_are_refused(pictures, image):
  model = built(pictures, VQ, degradation={'name': 'denoise'})
  with pytest.raises(InputError, match='restores degraded images'):
    explore(model, image)


def test_images_and_pages_that_cannot_be_are_one_line(coded, image, tmp_path):
  model, _ = coded
  with pytest.raises(InputError, match=r'none\.png: no image: '):
    write_page(model, str(tmp_path / 'none.png'), str(tmp_path / 'a.html'))
  Image.fromarray(image).save(tmp_path / 'a.png')
  with pytest.raises(InputError, match='no/a.html cannot be written'):
    write_page(model, str(tmp_path / 'a.png'), str(tmp_path / 'no/a.html'))


def test_the_command_needs_a_model_and_an_image(monkeypatch):
  given = types.SimpleNamespace(model=None, output='explore.html')
  monkeypatch.setattr(command.flags, 'FLAGS', given)
  with pytest.raises(InputError, match='a model and an image'):
    command.main(['picture.png'])
