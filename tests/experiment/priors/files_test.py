"""Images to files and back by trained priors, and by the program."""

import dataclasses
import os

import numpy as np
import pytest
from absl import flags
from PIL import Image

from lasers_jax.cli import codec
from lasers_jax.codec import container
from lasers_jax.codec.prior_codec import CHECK_BYTES, FINGERPRINT_BYTES
from lasers_jax.errors import InputError
from lasers_jax.experiment import codec_files, loop
from lasers_jax.experiment.priors import loop as prior_loop
from lasers_jax.experiment.priors import running
from lasers_jax.experiment.priors.model import load_prior
from lasers_jax.priors.maps.masked import Masked
from tests import tiny
from tests.experiment.priors.conftest import config

pytest.importorskip('constriction')

HEAD = container.HEAD_BYTES + 2 + 3 * FINGERPRINT_BYTES + CHECK_BYTES


@pytest.fixture(scope='module')
def prior(run):
  return load_prior(run.workdir)


def check(prior, images):
  """Files give codes and images back, at the bits of the prior."""
  views = prior.view.of(images)
  none = np.full(len(views), prior.prior.classes)
  rows = {'view': views, 'label': none}
  bits = running.measure(prior.prior, prior.variables, rows, prior.mesh)
  expected = prior.images(views)
  for i, image in enumerate(images):
    data = prior.compress(image)
    np.testing.assert_array_equal(prior._codec.read(data), views[i])
    np.testing.assert_array_equal(prior.decompress(data), expected[i])
    assert 8 * (len(data) - HEAD) <= 1.01 * bits[i].sum() + 32


def test_sparse_codes_come_back_at_the_bits_of_the_prior(prior):
  assert prior.view.events.layout.sets
  check(prior, tiny.images(2))


@pytest.mark.slow
def test_codes_of_a_codebook_do_too(pictures, tmp_path):
  model, path = str(tmp_path / 'vq'), str(tmp_path / 'prior')
  given = tiny.config(pictures, steps=2)
  given['bottleneck'] = {'name': 'vq', 'K': 16}
  given['loss']['weights'] = {'pixel': 10.0, 'commitment': 0.25}
  loop.train_and_evaluate(given, model)
  prior_loop.train_prior(config(steps=2), model, path)
  check(load_prior(path), tiny.images(1))


def test_a_prior_is_of_one_size(prior):
  image = np.zeros((17, 31, 3), np.uint8)
  with pytest.raises(InputError, match='has 17x31 pixels, and the prior is of'):
    prior.compress(image)
  with pytest.raises(InputError, match='compress takes one image uint8'):
    prior.compress(tiny.images(2))


def test_files_of_other_kinds_are_refused(prior):
  other = container.pack(container.Frame(b'abcd', 16, 16, bytes(20)))
  with pytest.raises(InputError, match='of another prior or model: 61626364'):
    prior.decompress(other)
  data = prior.compress(tiny.images(1)[0])
  with pytest.raises(InputError, match='of another model'):
    prior.view.model.decompress(data)
  with pytest.raises(InputError, match='damaged: its checksum'):
    prior.decompress(data[:-1])


def test_priors_without_probabilities_of_codes_write_no_files(prior):
  image = tiny.images(1)[0]
  masked = Masked(sites=prior.prior.sites, layout=prior.prior.layout)
  config = {'prior': {'name': 'masked'}}
  with pytest.raises(InputError, match='is a prior masked, which gives codes'):
    dataclasses.replace(prior, prior=masked, config=config).compress(image)
  certain = prior.prior.clone(label_dropout=0.0)
  with pytest.raises(InputError, match='trained with prior.label_dropout=0'):
    dataclasses.replace(prior, prior=certain).compress(image)


def ran(*words, **env):
  """Runs the program to its end: what it printed."""
  process = tiny.start('codec.py', *map(str, words), devices=1, **env)
  out, err = process.communicate(timeout=200)
  assert process.returncode in (0, 2), err
  return out if process.returncode == 0 else err


@pytest.mark.slow
def test_the_program_codes_by_a_prior(run, tmp_path):
  Image.fromarray(tiny.images(1)[0]).save(tmp_path / 'a.png')
  prior, file = f'--prior={run.workdir}', tmp_path / 'a.lz'
  out = ran('encode', prior, tmp_path / 'a.png', tmp_path)
  assert f'1 image, {os.path.getsize(file)} bytes' in out
  ran('decode', prior, file, tmp_path / 'out')
  found = np.asarray(Image.open(tmp_path / 'out' / 'a.png'))
  trained = load_prior(run.workdir)
  expected = trained.images(trained.view.of(tiny.images(1)))[0]
  np.testing.assert_array_equal(found, expected)
  codec_files.print_info([str(file)])
  # XLA is free to compute otherwise with other flags.
  flags_of_xla = '--xla_cpu_enable_fast_min_max=true'
  out = ran('decode', prior, file, tmp_path / 'other', XLA_FLAGS=flags_of_xla)
  assert 'a.lz: the file was encoded by another program, or XLA_FLAGS' in out
  assert not (tmp_path / 'other' / 'a.png').exists()


@pytest.mark.parametrize(
  'command, words, said',
  [
    ('encode', ['--S=1'], 'leave out --S'),
    ('encode', ['--context=true'], 'leave out --context'),
    ('curve', [], 'leave out --prior'),
  ],
)
def test_words_that_a_prior_does_not_take(command, words, said):
  given = flags.FlagValues()
  for name in codec.CHANGES:
    flags.DEFINE_string(name, None, '', flag_values=given)
  given(['codec.py', *words])
  with pytest.raises(InputError, match=said):
    codec.code_by_prior(given, command, ['a.png', 'b'])
