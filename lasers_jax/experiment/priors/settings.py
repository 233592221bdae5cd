"""Builds the run of a map prior from the nested dictionaries of a config."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

from lasers_jax.core.ranges import Count, Seed, Whole
from lasers_jax.errors import InputError
from lasers_jax.experiment import sections
from lasers_jax.experiment.settings import EvaluationSettings, MeshSettings
from lasers_jax.priors.maps import MAP_PRIORS
from lasers_jax.priors.maps.base import DrawingSettings, MapPrior
from lasers_jax.priors.maps.events import ORDERS
from lasers_jax.training import workdir
from lasers_jax.training.optimizer import OptimizerSettings

VIEWS = 'codes', 'z', 'quantized'
CACHES = 'disk', 'none'


@dataclasses.dataclass(frozen=True)
class StageOne:
  """The trained model whose codes or latents are modelled.

  Attributes:
    path: a workdir or an exported model, or a tokenizer of another project.
    step: of its checkpoint.
    weights: the hash of its variables.
    data: the name of other images than those of its config, which a tokenizer
      of another project has not; '' keeps them.
    side: of the squares cut out of images; 0 is as in its config.
  """

  path: str = ''
  step: Whole = 0
  weights: str = ''
  data: str = ''
  side: Whole = 0


@dataclasses.dataclass(frozen=True)
class PriorExperiment:
  """The objects and settings of the run of a map prior.

  Attributes:
    steps, batch_size, seed, log_every, evaluate_every, checkpoint_every,
      checkpoints_kept, tensorboard: as of `settings.Experiment`.
    view: what is modelled: 'codes', or for a flow `z`, the output of the
      encoder, or `quantized`, what the decoder receives.
    order: of the members of a sparse code: 'energy' puts the strongest first,
      and of integers of channels those of the largest variance in training
      images; 'atoms' is by their numbers, 'random' one fixed order of all.
    cache: 'disk' codes the training images once, centre crops and their mirror
      images, into the workdir; 'none' codes each batch when it is due, with
      the augmentation of the model's training.
    kind, fields: the class of the prior, and the fields that the config gives.
    drawing: how it draws in validation.
    validation_images: of the validation split, at most.
  """

  steps: Count
  batch_size: Count
  kind: type[MapPrior]
  fields: Mapping[str, Any]
  drawing: DrawingSettings
  optimizer: OptimizerSettings
  mesh: MeshSettings
  evaluation: EvaluationSettings
  stage_one: StageOne
  view: str = 'codes'
  order: str = 'energy'
  cache: str = 'disk'
  validation_images: Count = 1_000
  seed: Seed = 0
  log_every: Whole = 50
  evaluate_every: Whole = 0
  checkpoint_every: Whole = 500
  checkpoints_kept: Count = 2
  tensorboard: bool = True


_SECTIONS = {
  'optimizer': OptimizerSettings,
  'mesh': MeshSettings,
  'evaluation': EvaluationSettings,
  'stage_one': StageOne,
}
_CHOICES = {'view': VIEWS, 'order': ORDERS, 'cache': CACHES}


def from_config(config: Mapping[str, Any]) -> PriorExperiment:
  """Builds the run of a prior from a config.

  Raises:
    InputError: a key is unknown, missing, or has a value that cannot be used.
  """
  config = dict(config)
  names = *_SECTIONS, 'prior', 'drawing'
  given = {x: sections.section(config.pop(x, {}), x) for x in names}
  kind = sections.choose(MAP_PRIORS, given['prior'], 'prior')
  fields = {k: v for k, v in given['prior'].items() if k != 'name'}
  fields = sections.read(kind, sections.with_dtype(fields, 'prior'), 'prior')
  drawing = sections.build(kind.Drawing, given['drawing'], 'drawing')
  parts = {
    name: sections.build(section, given[name], name)
    for name, section in _SECTIONS.items()
  }
  parts |= {'kind': kind, 'fields': fields, 'drawing': drawing}
  found = sections.build(PriorExperiment, config, '', parts, names)
  for name, choices in _CHOICES.items():
    if getattr(found, name) not in choices:
      raise InputError(
        f'{name} must be one of {choices}: {getattr(found, name)!r}'
      )
  if found.view not in kind.VIEWS:
    raise InputError(
      f'view={found.view!r} is not for prior.name={given["prior"]["name"]!r}, '
      f'which models {" or ".join(kind.VIEWS)}'
    )
  return found


def load_config(path: str) -> dict:
  """Reads the config of the workdir of a prior.

  Raises:
    InputError: there is none, or it is of a model.
  """
  config = workdir.load_config(path)
  if 'stage_one' not in config:
    raise InputError(
      f'{path} is a model and no prior: train one over it, in a workdir of its '
      'own (lasers-jax prior --model)'
    )
  return config


def with_defaults(
  config: Mapping[str, Any], none: Callable[[Any], Any] = lambda kind: None
) -> dict[str, Any]:
  """Returns a config with all defaults, as `settings.with_defaults` does."""
  filled = sections.filled(PriorExperiment, config, none)
  for name, kind in _SECTIONS.items():
    given = sections.section(config.get(name, {}), name)
    filled[name] = sections.filled(kind, given, none)
  prior = sections.section(config.get('prior', {}), 'prior')
  kind = MAP_PRIORS.get(prior.get('name', ''))
  if kind:
    filled['prior'] = sections.filled(kind, prior, none)
    drawing = sections.section(config.get('drawing', {}), 'drawing')
    filled['drawing'] = sections.filled(kind.Drawing, drawing, none)
  return filled


def build_prior(experiment: PriorExperiment, **given: Any) -> MapPrior:
  """Builds the module of a prior, and checks it.

  Args:
    given: `sites`, `classes`, and `layout` of codes or `D` of latents.
  """
  prior = cast(MapPrior, experiment.kind(**experiment.fields, **given))
  prior.check()
  prior.check_drawing(experiment.drawing)
  return prior
