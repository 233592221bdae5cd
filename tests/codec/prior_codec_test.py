"""Events to files and back, by small priors far from their start."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from lasers_jax.codec import container
from lasers_jax.codec.coder import RowCoder
from lasers_jax.codec.prior_codec import (
  CHECK_BYTES,
  FINGERPRINT_BYTES,
  Origin,
  PriorCodec,
  check_origin,
  origin_of,
)
from lasers_jax.codec.prior_walk import PriorWalk, weights_of
from lasers_jax.errors import InputError, TrainingError
from lasers_jax.priors.maps.autoregressive import Autoregressive
from lasers_jax.priors.maps.layout import Layout
from tests.priors.maps import small

pytest.importorskip('constriction')

HEAD = container.HEAD_BYTES + 2 + 3 * FINGERPRINT_BYTES + CHECK_BYTES
LAYOUTS = {
  'planes': Layout((4, 6), (7, 1, 40)),
  'sets': small.pairs((5, 5), k=9, levels=3, s=3),
  'kept': Layout((4, 4), (2, 20), kept=5),
}


def codec_of(layout):
  prior, variables = small.prior(Autoregressive, layout)
  walk = PriorWalk(prior, variables, jax.devices()[0])
  return prior, variables, PriorCodec(walk, b'name', 8)


class Sampler(RowCoder):
  """Draws integers by their weights, and adds up what they cost: `bits`."""

  sets = None

  def __init__(self, seed):
    self._rng, self.bits = np.random.default_rng(seed), 0.0

  def _row(self, name, shape, row, values, n):
    raise NotImplementedError

  def _integers(self, values, n, weights):
    shares = weights / weights.sum()
    drawn = self._rng.choice(len(weights), n, p=shares)
    self.bits -= float(np.log2(shares[drawn]).sum())
    return drawn


class Case(NamedTuple):
  """A codec, drawn events of images, their bits by weights and by the prior."""

  codec: PriorCodec
  events: np.ndarray
  drawn_bits: list[float]
  bits: np.ndarray


@functools.cache
def case(kind):
  prior, variables, codec = codec_of(LAYOUTS[kind])
  samplers = Sampler(0), Sampler(1)
  events = np.stack([codec.walk.code(sampler) for sampler in samplers])
  none = np.full(2, prior.classes, np.int32)
  bits = jax.jit(functools.partial(prior.apply, method='bits'))
  each = np.asarray(bits(variables, events, none))
  drawn_bits = [sampler.bits for sampler in samplers]
  return Case(codec, events, drawn_bits, each.sum(axis=(1, 2, 3)))


@pytest.fixture(scope='module')
def planes():
  codec, events, *_ = case('planes')
  return codec, events[0], codec.write(events[0])


@pytest.mark.parametrize('kind', LAYOUTS)
def test_events_come_back_at_the_bits_of_the_prior(kind):
  codec, events, _, bits = case(kind)
  for own, expected in zip(events, bits, strict=True):
    data = codec.write(own)
    np.testing.assert_array_equal(codec.read(data), own)
    size = 8 * (len(data) - HEAD)
    assert 0.99 * expected - 1 <= size <= 1.01 * expected + 32


@pytest.mark.parametrize('kind', LAYOUTS)
def test_weights_are_the_probabilities_of_the_prior(kind):
  found = case(kind)
  np.testing.assert_allclose(found.drawn_bits, found.bits, rtol=1e-3)


def test_weights_of_logits():
  logits = np.log(np.array([[8, 4, 2, 1, 1e-30]], np.float32))
  logits[0, 2] = -np.inf
  weights = weights_of(logits + 3)
  assert weights.dtype == np.int64
  np.testing.assert_allclose(weights[[0, 1, 3]] / weights[0], [1, 0.5, 0.125])
  assert weights[2] == 0  # is not legal
  assert weights[4] == 1  # is unlikely, and can be coded all the same


def test_compiling_again_gives_the_same_bytes():
  codec, events, *_ = case('kept')
  again = codec_of(LAYOUTS['kept'])[2]
  assert again.walk.program == codec.walk.program
  assert again.write(events[0]) == codec.write(events[0])


@pytest.mark.parametrize('part', Origin._fields)
def test_a_file_of_another_fingerprint_is_refused(planes, part, monkeypatch):
  codec, _, data = planes
  origin = origin_of(codec.walk)
  said = {
    'versions': f'with other versions than jax {jax.__version__}, jaxlib',
    'device': 'on another device than cpu',
    'program': 'by another program, or XLA_FLAGS other than',
  }
  other = origin._replace(**{part: 'another'})
  with pytest.raises(InputError, match=said[part]) as error:
    check_origin(other.fingerprint(), origin)
  assert 'decode it where it was encoded' in str(error.value)
  assert '\n' not in str(error.value)
  assert sum(words in str(error.value) for words in said.values()) == 1
  monkeypatch.setattr(
    'lasers_jax.codec.prior_codec.origin_of', lambda walk: other
  )
  with pytest.raises(InputError, match='decode it where it was encoded'):
    codec.read(data)


def test_files_of_other_weights_are_refused(planes):
  codec, _, data = planes
  other = PriorCodec(codec.walk, b'mane', codec.side)
  with pytest.raises(InputError, match='of another prior or model: 6e616d65'):
    other.read(data)


def test_an_order_of_pairs_is_part_of_the_program():
  layout = LAYOUTS['sets']
  group = layout.sets[0]
  turned = group._replace(atoms=group.atoms[::-1], levels=group.levels[::-1])
  other = Layout(layout.sites, layout.sizes, (turned,))
  assert codec_of(other)[2].walk.program != case('sets').codec.walk.program


def with_checksum(data):
  """The file of changed bytes, whose checksum fits again."""
  body = data[container.HEAD_BYTES :]
  return container.head(data[3:7], body) + body


@pytest.mark.parametrize('kind', ['cut', 'short', 'longer', 'zeros', 'turned'])
def test_damaged_files_are_one_line(planes, kind):
  codec, events, data = planes
  bad = {
    'cut': data[:-3],
    'short': data[: HEAD - 3],
    'longer': data + b'\1\2\3\4',
    'zeros': data + bytes(4),
    'turned': data[:HEAD] + data[HEAD:][::-1],
  }[kind]
  with pytest.raises(InputError, match='damaged|cut short') as error:
    codec.read(bad)
  assert '\n' not in str(error.value)
  try:  # by who makes files on purpose
    np.testing.assert_array_equal(codec.read(with_checksum(bad)), events)
  except InputError as error:
    assert '\n' not in str(error)
  else:
    assert kind in ('longer', 'zeros')


def test_numbers_that_differ_all_the_same_are_seen(planes, monkeypatch):
  codec, _, data = planes
  program = codec.walk._programs.advance

  def other(*args):
    walk = program(*args)
    return walk._replace(before=1.01 * walk.before)

  programs = codec.walk._programs._replace(advance=other)
  monkeypatch.setitem(codec.walk.__dict__, '_programs', programs)
  with pytest.raises(InputError, match='other numbers here, on cpu'):
    codec.read(data)


def test_an_encoder_reads_what_it_writes(planes, monkeypatch):
  codec, events, _ = planes
  program, calls = codec.walk._programs.advance, []

  def unsteady(*args):
    calls.append(1)
    walk = program(*args)
    return walk._replace(before=walk.before + len(calls))

  programs = codec.walk._programs._replace(advance=unsteady)
  monkeypatch.setitem(codec.walk.__dict__, '_programs', programs)
  with pytest.raises(TrainingError, match='not compute the same numbers twice'):
    codec.write(events)
