"""Every number that a config may set has a range, and is held to it."""

import copy
import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import pytest

from lasers_jax.bottlenecks import BOTTLENECKS, Bottleneck
from lasers_jax.core import ranges
from lasers_jax.core.ranges import Range
from lasers_jax.decoders import DECODERS, Decoder, SamplingSettings
from lasers_jax.degradations import DEGRADATIONS, Degradation
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings
from lasers_jax.experiment.presets import bottlenecks
from lasers_jax.experiment.tokenizers import SourceSettings
from lasers_jax.networks import NETWORKS
from lasers_jax.priors.vector import PRIORS, parse
from lasers_jax.training.adversarial import DiscriminatorSettings

SECTIONS = {
  '': settings.Experiment,
  **settings._SECTIONS,
  'discriminator': DiscriminatorSettings,
}
# What a config builds, by the section, and the name where there are several.
BUILT = {(section, ''): kind for section, kind in SECTIONS.items()}
BUILT |= {('network', name): kinds[0] for name, kinds in NETWORKS.items()}
BUILT |= {('bottleneck', name): kind for name, kind in BOTTLENECKS.items()}
BUILT |= {('bottleneck.inner', 'vq'): BOTTLENECKS['vq']}
BUILT |= {
  ('decoder', 'diffusion'): DECODERS['diffusion'],
  ('decoder.training', 'diffusion'): DECODERS['diffusion'].Training,
  ('decoder.sampling', 'diffusion'): DECODERS['diffusion'].Sampling,
}
EVERY = [*BUILT.values(), *PRIORS.values()]
EVERY += [kinds[1] for kinds in NETWORKS.values()]
EVERY += DEGRADATIONS.values()
# These fields hold no numbers; the last ones are built from other sections.
OTHERS = (
  jnp.dtype,
  Bottleneck,
  nn.Module,
  SamplingSettings,
  SourceSettings,
  Degradation,
  *SECTIONS.values(),
)


def name_of(value) -> str:
  return '-'.join(filter(None, value)) if isinstance(value, tuple) else None


def fields_of(kind: type) -> dict[str, Any]:
  """The annotations of what a config may set, by name."""
  own = ('parent', 'name') if issubclass(kind, nn.Module) else ()
  own += ('network', 'training') if issubclass(kind, Decoder) else ()
  return {
    field.name: field.type
    for field in dataclasses.fields(kind)
    if field.init and field.name not in own
  }


def leaves(kind: Any):
  """The single values that an annotation speaks of: (type, range or None)."""
  if typing.get_origin(kind) is Annotated:
    base, beside = typing.get_args(kind)
    if isinstance(beside, Mapping):
      yield from (leaf for own in beside.values() for leaf in leaves(own))
    elif base in (int, float):
      yield base, beside
      return
    yield from leaves(base)
  elif (
    kind is Any
  ):  # data.options: by the signature of the source that reads it
    return
  elif typing.get_args(kind):
    for each in typing.get_args(kind):
      if each is not Ellipsis:
        yield from leaves(each)
  else:
    yield kind, None


@pytest.mark.parametrize('kind', EVERY, ids=lambda kind: kind.__name__)
def test_no_number_is_without_a_range(kind):
  for name, annotation in fields_of(kind).items():
    for base, interval in leaves(annotation):
      if base in (int, float):
        assert isinstance(interval, Range), name
      elif not (base in (bool, str, type(None)) or issubclass(base, OTHERS)):
        raise AssertionError(f'{name}: nothing checks {base}')


@pytest.mark.parametrize('kind', EVERY, ids=lambda kind: kind.__name__)
def test_defaults_are_in_their_ranges(kind):
  for field in dataclasses.fields(kind):
    if field.default is not dataclasses.MISSING:
      ranges.check(field.default, field.type, field.name)


def unfit(kind: Any, path: str):
  """Values that are none of a kind: (value, path, what is said of it)."""
  base, beside = kind, None
  if typing.get_origin(kind) is Annotated:
    base, beside = typing.get_args(kind)
  args = typing.get_args(base)
  if type(None) in args:
    for value, where, said in unfit(args[0], path):
      if value is not None:
        yield value, where, said
  elif base in (int, float):
    yield from unfit_numbers(base, beside, path)
  elif typing.get_origin(base) is tuple:
    rest = [1.0] * (0 if Ellipsis in args else len(args) - 1)
    yield 3, path, 'a list'
    yield 'abc', path, 'a list'
    if rest or beside:
      yield (), path, 'a list of'
    for value, _, said in unfit(args[0], path):
      yield [value, *rest], f'{path}[0]', said
  elif typing.get_origin(base) is Mapping:
    yield 3, path, 'a section of keys'
    for value, where, said in unfit(args[1], f'{path}.pixel'):
      yield {'pixel': value}, where, said
  elif base in (bool, str):
    yield 3, path, {bool: 'True or False', str: 'text'}[base]


def unfit_numbers(base: type, interval: Range, path: str):
  noun = {int: 'a whole number', float: 'a finite number'}[base]
  wrong = ['3', None, True, (1,), math.nan, math.inf, -math.inf]
  wrong += [2.5, 10**10] if base is int else [1e39, 10**400]
  for value in wrong:
    yield value, path, noun
  least = {int: 1, float: 1e-3}[base]
  if interval.low is not None:
    is_open = interval.ends[0] == '('
    said = f'{"more than" if is_open else "at least"} {interval.low:g}'
    for value in (interval.low - least, interval.low * is_open - 1e9 * least):
      yield base(value), path, said
    if is_open:
      yield base(interval.low), path, said
      yield interval.low + 1e-46, path, said  # the same in float32
  if interval.high is not None:
    is_open = interval.ends[1] == ')'
    said = 'less than' if is_open else 'at most'
    said = f'{said} {interval.high:.10g}'
    yield base(interval.high + least), path, said
    if is_open:
      yield base(interval.high), path, said
      yield interval.high - 1e-12, path, said  # the same in float32


def config_of(section: str, name: str) -> dict:
  """A config that builds, with the section."""
  config = {
    'seed': 0,
    'steps': 1,
    'batch_size': 2,
    'data': {'name': 'photos', 'side': 32},
    'network': {'name': 'vqvae', 'D': 16},
    'bottleneck': {'name': 'vq'},
    'decoder': {'name': 'diffusion'},
    'discriminator': {},
  }
  if section == 'network':
    config['network'] = {'name': name, 'D': 16}
    config['network'] |= {'side': 32} if name == 'vector' else {}
  if section == 'bottleneck':
    config['bottleneck'] = bottlenecks.choose(name)[0]
  if section == 'bottleneck.inner':
    config['bottleneck'] = bottlenecks.choose('residual')[0]
  return config


@pytest.mark.parametrize('which', BUILT, ids=name_of)
def test_numbers_out_of_range_are_refused(which):
  section, name = which
  config = config_of(section, name)
  settings.from_config(config)
  count = 0
  for key, kind in fields_of(BUILT[which]).items():
    if section.startswith('bottleneck') and key == 'D':
      continue  # comes from the network
    path = f'{section}.{key}' if section else key
    for value, where, said in unfit(kind, path):
      changed = copy.deepcopy(config)
      place = changed
      for part in section.split('.') if section else ():
        place = place.setdefault(part, {})
      place[key] = value
      with pytest.raises(InputError) as error:
        settings.from_config(changed)
      found, _, must = str(error.value).partition(': it must be ')
      assert found.startswith(f'{where} is '), (value, str(error.value))
      assert said in must, (value, str(error.value))
      assert '\n' not in str(error.value)
      assert len(str(error.value)) < 200
      count += 1
  assert count


@pytest.mark.parametrize('name', [*BOTTLENECKS])
def test_bottlenecks_built_by_hand_check_their_ranges(name):
  config = config_of('bottleneck', name)
  module = settings.from_config(config).model.bottleneck
  for key, kind in fields_of(type(module)).items():
    for value, where, said in unfit(kind, key):
      with pytest.raises(ValueError) as error:
        module.clone(**{key: value}).check()
      found, _, must = str(error.value).partition(': it must be ')
      assert found.startswith(f'{where} is '), value
      assert said in must, value


@pytest.mark.parametrize('name', PRIORS)
def test_priors_check_their_ranges(name):
  for key, kind in fields_of(PRIORS[name]).items():
    for value, where, said in unfit(kind, key):
      with pytest.raises(InputError) as error:
        PRIORS[name](**{key: value})
      found, _, must = str(error.value).partition(': it must be ')
      assert found.startswith(f'{where} is '), value
      assert said in must, value
      if kind is str or type(value) not in (int, float):
        continue
      with pytest.raises(InputError) as error:
        parse(f'{name}:{key}={value}')
      text = str(error.value)
      assert text.startswith(f'{name}: {key} is {str(value)!r}: it must be ')
      assert said in text


@pytest.mark.parametrize(
  'kind, values',
  [
    (ranges.Whole, [0, 1, 2**31 - 1]),
    (ranges.Count, [1, 2**31 - 1]),
    (ranges.Seed, [0, 2**32 - 1]),
    (ranges.Number, [0, -3.4e38, 3.4e38, 1]),
    (ranges.Amount, [0, 1, 1e-50]),
    (ranges.Positive, [1, 1e-30]),
    (ranges.Fraction, [0, 1, 0.5, 1e-50]),
    (ranges.Decay, [0, 0.0, 0.999999]),
    (ranges.Counts, [(1,), [3, 2, 1]]),
    (Annotated[int, Range(1, also=-1)], [-1, 1]),
    (Annotated[float, Range(high=1)], [1, -1e30]),
    (Annotated[int, Range(1, 12)] | None, [None, 1, 12]),
    (tuple[ranges.Fraction, ranges.Fraction], [(0, 1), [0.5, 0.25]]),
  ],
)
def test_what_belongs_to_a_range_passes(kind, values):
  for value in values:
    ranges.check(value, kind, 'key')


def test_a_name_may_have_a_kind_of_its_own():
  kind = Annotated[Mapping[str, ranges.Amount], {'size': ranges.Number}]
  ranges.check({'size': -1.0, 'pixel': 1.0}, kind, 'weights')
  with pytest.raises(InputError, match='weights.size is nan: .* finite'):
    ranges.check({'size': math.nan}, kind, 'weights')
  with pytest.raises(InputError, match='weights.rate is -1.0: .* at least 0'):
    ranges.check({'rate': -1.0}, kind, 'weights')


@pytest.mark.parametrize(
  'value, kind, shown',
  [
    (1e-50, ranges.Positive, r'1e-50 \(0 in float32\)'),
    (1 - 1e-12, ranges.Decay, r'0.999999999999 \(1 in float32\)'),
    (1e39, ranges.Amount, r'1e\+39 \(inf in float32\)'),
    (3 * 10**9, ranges.Count, r'3000000000 \(more than 32 bits\)'),
    ('x' * 300, ranges.Count, "'x{59}\\.\\.\\."),
  ],
)
def test_a_value_is_shown_as_it_is_taken(value, kind, shown):
  with pytest.raises(InputError, match=f'^key is {shown}: it must be '):
    ranges.check(value, kind, 'key')


@pytest.mark.parametrize(
  'text, kind, value',
  [
    ('3', ranges.Count, 3),
    ('', ranges.Count | None, None),
    ('1e-3', ranges.Positive, 1e-3),
    ('2', ranges.Amount | None, 2.0),
    ('around', str, 'around'),
  ],
)
def test_words_are_read(text, kind, value):
  found = ranges.read(text, kind)
  assert found == value
  assert type(found) is type(value)


@pytest.mark.parametrize('text', ['x', '0', '1.5', 'None', 'nan', '1e3'])
def test_words_that_stand_for_nothing(text):
  with pytest.raises(ValueError, match='^it must be a whole number, at least'):
    ranges.read(text, ranges.Count | None)


def test_fields_are_declared():
  assert ranges.declared(DiscriminatorSettings, 'r1') == ranges.Amount
