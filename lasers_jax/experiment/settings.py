"""Builds checked objects from the nested dictionaries of a config."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh

from lasers_jax.bottlenecks import BOTTLENECKS, Bottleneck
from lasers_jax.core.ranges import Count, Range, Seed, Whole, check
from lasers_jax.core.sharding import make_mesh
from lasers_jax.data import DataSettings
from lasers_jax.decoders import (
  DECODERS,
  DEFAULT,
  Decoder,
  SamplingSettings,
)
from lasers_jax.degradations import DEGRADATIONS, Degradation
from lasers_jax.errors import InputError
from lasers_jax.experiment import sections, tokenizers
from lasers_jax.experiment.tokenizers import SourceSettings
from lasers_jax.networks import NETWORKS
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.training.adversarial import (
  Adversary,
  DiscriminatorSettings,
  make_adversary,
)
from lasers_jax.training.objective import LATENT, LossSettings
from lasers_jax.training.optimizer import OptimizerSettings, make_optimizer


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """Devices along each axis of the mesh; data = -1 takes all that are left."""

  data: Annotated[int, Range(1, also=-1)] = -1
  fsdp: Count = 1
  model: Count = 1


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
  """Settings of evaluation, on which results do not depend.

  Attributes:
    batch_size: images at a time.
    pictures: images in the figure of reconstructions.
  """

  batch_size: Count = 128
  pictures: Count = 8


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The objects and settings of a whole run.

  Attributes:
    seed: of everything random.
    steps: batches in all.
    batch_size: images in a batch, over all devices.
    log_every, evaluate_every, checkpoint_every: in steps; 0 is never.
    checkpoints_kept: newest checkpoints to keep; older ones are removed.
    tensorboard: whether to write TensorBoard files, if TensorFlow is installed.
    model: the autoencoder, not yet initialized.
    source: where the weights of its networks come from.
    discriminator: None trains without one.
    degradation: of the images that the encoder sees; None reconstructs images
      as they are.
    decoding: the sampling settings of the decoder, a `Sampling` of its class.
  """

  steps: Count
  batch_size: Count
  data: DataSettings
  model: Autoencoder
  loss: LossSettings
  optimizer: OptimizerSettings
  mesh: MeshSettings
  evaluation: EvaluationSettings
  decoding: SamplingSettings
  source: SourceSettings
  discriminator: DiscriminatorSettings | None = None
  degradation: Degradation | None = None
  seed: Seed = 0
  log_every: Whole = 50
  evaluate_every: Whole = 0
  checkpoint_every: Whole = 500
  checkpoints_kept: Count = 2
  tensorboard: bool = True

  @property
  def pad_multiple(self) -> int:
    """Returns the number that sides are padded to a multiple of."""
    return self.model.pad_multiple

  def evaluation_mesh(self) -> Mesh:
    """Returns a mesh of as many devices as divide a batch of evaluation."""
    size = math.gcd(self.evaluation.batch_size, jax.device_count())
    return make_mesh(data=size)

  @property
  def bits_per_pixel(self) -> float | None:
    """Returns the bits per pixel at fixed length of images of `data.side`.

    None for a continuous code.
    """
    side = self.data.side
    bits = self.model.map_bits(side, side)
    return None if bits is None else bits / side**2


_SECTIONS = {
  'data': DataSettings,
  'loss': LossSettings,
  'optimizer': OptimizerSettings,
  'mesh': MeshSettings,
  'evaluation': EvaluationSettings,
}


_PATCH = 'patch'  # a key of the section `bottleneck`, whichever that is


def from_config(config: Mapping[str, Any]) -> Experiment:
  """Builds a run from a config.

  Args:
    config: nested dictionaries; see `configs/` for examples.

  Raises:
    InputError: a key is unknown (so nothing would read it), missing, or has a
      value that cannot be used, or contradicts `network.pretrained`.
  """
  config = tokenizers.completed(config)
  names = (*_SECTIONS, 'network', 'bottleneck', 'decoder', 'discriminator')
  names = (*names, 'degradation')
  decoder = sections.section(config.pop('decoder', DEFAULT), 'decoder')
  discriminator = config.pop('discriminator', None)
  degradation = _build_degradation(config.pop('degradation', None))
  given = {
    name: sections.section(config.pop(name, {}), name)
    for name in (*_SECTIONS, 'network', 'bottleneck')
  }
  source, network = tokenizers.parted(given.pop('network'))
  model = build_model(network, given.pop('bottleneck'), decoder).clone(
    standardized=bool(source.pretrained), frozen=source.frozen
  )
  if degradation is not None:
    sees = degradation.protocol == 'input'
    model = model.clone(channels=degradation.channels, sees_input=sees)
  parts = {
    name: sections.build(_SECTIONS[name], section, name)
    for name, section in given.items()
  }
  if discriminator is not None:
    section = sections.section(discriminator, 'discriminator')
    parts['discriminator'] = sections.build(
      DiscriminatorSettings, section, 'discriminator'
    )
  decoding = _build_decoding(decoder, cast(Decoder, model.decoder))
  parts |= {'model': model, 'decoding': decoding, 'source': source}
  parts['degradation'] = degradation
  settings = sections.build(Experiment, config, '', parts, names)
  if settings.data.side % settings.pad_multiple:
    f, of_decoder = model.encoder.f, model.decoder.pad_multiple
    raise InputError(
      f'data.side={settings.data.side} is not a multiple of '
      f'{settings.pad_multiple} (factor {f} × latent patch '
      f'{model.patch}'
      + (f', {of_decoder} of the decoder)' if of_decoder != f else ')')
    )
  _check_frozen(settings)
  if degradation is not None:
    degradation.check(settings.data.side, settings.data.side)
  return settings


def _check_frozen(experiment: Experiment) -> None:
  """Raises InputError where a loss does not go with what is trained."""
  frozen, discriminator = experiment.source.frozen, experiment.discriminator
  latent = experiment.loss.pixel == LATENT
  if latent and not frozen:
    raise InputError(
      "loss.pixel='latent' trains no network of images: it needs "
      'network.pretrained=PATH and network.frozen=true'
    )
  if latent and discriminator is not None:
    raise InputError(
      "loss.pixel='latent' makes no images, and a discriminator sees nothing "
      "else: take loss.pixel='mse', or leave out the discriminator"
    )
  if (latent or frozen) and experiment.degradation is not None:
    raise InputError(
      'degradation.name: an encoder learns to restore images by a loss of '
      'images: leave out network.frozen, or the degradation'
    )
  if frozen and discriminator is not None and discriminator.adaptive:
    raise InputError(
      'discriminator.adaptive=true goes by the gradient of the last layer, '
      'which network.frozen=true keeps: set discriminator.adaptive=false'
    )


def build_learners(
  experiment: Experiment,
) -> tuple[optax.GradientTransformation, Adversary | None]:
  """Builds the optimizer of a run, and its discriminator if it has one."""
  optimizer = make_optimizer(experiment.optimizer, experiment.steps)
  discriminator = experiment.discriminator
  return optimizer, make_adversary(discriminator) if discriminator else None


def with_defaults(
  config: Mapping[str, Any], none: Callable[[Any], Any] = lambda kind: None
) -> dict[str, Any]:
  """Returns a config with all defaults filled in, and nothing else added.

  Two configs that are equal then make the same run. Unknown keys and names
  stay as they are, so that a config of another release can be compared.

  Args:
    none: returns what replaces a value of None, by the annotation of its field.
  """
  filled = sections.filled(Experiment, config, none)
  for name in ('discriminator', 'degradation'):
    if name not in config:
      del filled[name]
  if 'degradation' in config:
    section = sections.section(config['degradation'], 'degradation')
    kind = DEGRADATIONS.get(section.get('name', ''))
    filled['degradation'] = (
      sections.filled(kind, section, none) if kind else dict(section)
    )
  kinds = {'discriminator': DiscriminatorSettings, **_SECTIONS}
  for name, kind in kinds.items():
    if name in config or name in _SECTIONS:
      section = sections.section(config.get(name, {}), name)
      filled[name] = sections.filled(kind, section, none)
  network = sections.section(config.get('network', {}), 'network')
  for kind in NETWORKS.get(network.get('name', ''), ()):
    filled['network'] = sections.filled(kind, filled['network'], none)
  if 'network' in filled:
    filled['network'] = {
      **sections.defaults(SourceSettings),
      **filled['network'],
    }
  section = sections.section(config.get('decoder', DEFAULT), 'decoder')
  filled['decoder'] = _filled_decoder(section, none)
  if 'bottleneck' in config:
    section = sections.section(config['bottleneck'], 'bottleneck')
    filled['bottleneck'] = _filled_bottleneck(section, none)
    filled['bottleneck'].setdefault(_PATCH, Autoencoder.patch)
  return filled


def _filled_bottleneck(section: Mapping, none: Callable) -> dict[str, Any]:
  kind = BOTTLENECKS.get(section.get('name', ''))
  filled = sections.filled(kind, section, none) if kind else dict(section)
  filled.pop('D', None)  # that of the network
  if 'inner' in section:
    inner = sections.section(section['inner'], 'bottleneck.inner')
    filled['inner'] = _filled_bottleneck(inner, none)
  return filled


def _filled_decoder(section: Mapping, none: Callable) -> dict[str, Any]:
  kind = DECODERS.get(section.get('name', ''))
  if not kind:
    return dict(section)
  filled = sections.filled(kind, section, none)
  for name, part in _parts_of(kind).items():
    given = sections.section(section.get(name, {}), f'decoder.{name}')
    filled[name] = sections.filled(part, given, none)
  return filled


def _parts_of(kind: type[Decoder]) -> dict[str, type]:
  """Returns the sections within `decoder`, with their classes."""
  return {'training': kind.Training, 'sampling': kind.Sampling}


def build_model(
  network: Mapping, bottleneck: Mapping, decoder: Mapping = DEFAULT
) -> Autoencoder:
  """Builds the autoencoder from its sections.

  Raises:
    InputError: an unknown name or key, or values that contradict.
  """
  kinds = sections.choose(NETWORKS, network, 'network')
  network = {k: v for k, v in network.items() if k != 'name'}
  network = sections.with_dtype(network, 'network')
  ends = [sections.build(kind, network, 'network') for kind in kinds]
  patch = bottleneck.get(_PATCH, Autoencoder.patch)
  check(patch, Count, f'bottleneck.{_PATCH}')
  coder = {k: v for k, v in bottleneck.items() if k != _PATCH}
  width = network['D'] * patch**2
  model = Autoencoder(
    encoder=ends[0],
    bottleneck=_build_bottleneck(coder, width, 'bottleneck'),
    decoder=_build_decoder(decoder, ends[1]),
    patch=patch,
  )
  try:
    model.bottleneck.check()
  except ValueError as error:
    raise InputError(f'bottleneck: {error}') from error
  return model


def _build_bottleneck(section: Mapping, d: int, where: str) -> Bottleneck:
  """Builds a bottleneck for latents of width d, and the one inside it."""
  kind = sections.choose(BOTTLENECKS, section, where)
  section = {k: v for k, v in section.items() if k != 'name'}
  fields = sections.read(kind, section, where, given=('D',))
  if 'inner' in fields:
    inner = sections.section(fields['inner'], f'{where}.inner')
    groups = fields.get('groups', getattr(kind, 'groups', 1))
    width = max(d // groups, 1)  # `check` refuses another width
    fields['inner'] = _build_bottleneck(inner, width, f'{where}.inner')
  return kind(D=d, **fields)


def _build_decoder(section: Mapping, network: nn.Module) -> Decoder:
  """Builds a decoder of a network, all but how it samples."""
  kind = sections.choose(DECODERS, section, 'decoder')
  parts = _parts_of(kind)
  own = {k: v for k, v in section.items() if k not in ('name', *parts)}
  given = {'network': network, 'training': _build_part(section, 'training')}
  return sections.build(
    kind, sections.with_dtype(own, 'decoder'), 'decoder', given, parts
  )


def _build_decoding(section: Mapping, decoder: Decoder) -> SamplingSettings:
  """Builds the sampling settings of a decoder, and checks them."""
  decoding = _build_part(section, 'sampling')
  decoder.check(decoding)
  return decoding


def _build_degradation(given: Any) -> Degradation | None:
  """Builds the degradation of a section, if there is one."""
  if given is None:
    return None
  section = dict(sections.section(given, 'degradation'))
  kind = sections.choose(DEGRADATIONS, section, 'degradation')
  del section['name']
  return sections.build(kind, section, 'degradation')


def _build_part(section: Mapping, name: str) -> Any:
  """Builds `training` or `sampling` of the section of a decoder."""
  kind = _parts_of(DECODERS[section['name']])[name]
  given = sections.section(section.get(name, {}), f'decoder.{name}')
  if given and not sections.fields_of(kind):
    raise InputError(
      f'nothing reads decoder.{name}: decoder.name={section["name"]!r} has no '
      'such settings'
    )
  return sections.build(kind, given, f'decoder.{name}')
