"""Parts of configs by name: bottlenecks, decoders, autoencoders, papers."""

import copy
import functools
from collections.abc import Mapping
from typing import Any

from lasers_jax.core.trees import merge
from lasers_jax.experiment import settings
from lasers_jax.experiment.presets import (
  autoencoders,
  bottlenecks,
  decoders,
  papers,
)


def complete(
  config: Mapping[str, Any], argument: str, *over: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns a config with the bottleneck and the decoder of an argument.

  Args:
    config: nested dictionaries that differ from the defaults. They overrule the
      bottleneck and the weights of the argument.
    argument: the name of a bottleneck, and after plus signs names of parts of
      `decoders`, as in 'vq+gan'.
    over: others, which overrule the parts, too.

  Raises:
    InputError: a name is unknown.
  """
  name, _, parts = argument.partition('+')
  section = dict(config.get('bottleneck', {}))
  codes = {'K': section.pop('K')} if 'K' in section else {}
  chosen = _sections(*bottlenecks.choose(name, **codes))
  found = merge(chosen, {**config, 'bottleneck': section})
  decoders.add(found, parts)
  return settings.with_defaults(functools.reduce(merge, over, found))


def published(config: Mapping[str, Any], argument: str) -> dict[str, Any]:
  """Returns a config in the settings of papers, for images of 256 pixels.

  Args:
    config: nested dictionaries that differ from them; see `papers`.
    argument: as of `complete`.

  Raises:
    InputError: a name is unknown.
  """
  name, *parts = argument.split('+')
  sections = papers.of_bottleneck(name, parts)
  over = papers.of_parts(name, parts)
  return complete(merge(sections, config), argument, *over)


def of_vectors(
  config: Mapping[str, Any], argument: str, pixels: int
) -> dict[str, Any]:
  """Returns a config with the autoencoder of a name; see `autoencoders`."""
  chosen = _sections(*autoencoders.choose(argument, pixels))
  return settings.with_defaults(merge(chosen, config))


def replace(config: Mapping[str, Any], argument: str) -> dict[str, Any]:
  """Returns a config with another bottleneck and decoder, as in `complete`.

  The patches of latents stay.
  """
  name, _, parts = argument.partition('+')
  chosen = _sections(*bottlenecks.choose(name))
  patch = config.get('bottleneck', {}).get('patch')
  if patch is not None:
    chosen['bottleneck']['patch'] = patch
  loss = {**config['loss'], **chosen['loss']}
  return add_decoder({**config, **chosen, 'loss': loss}, parts)


def add_decoder(config: Mapping[str, Any], names: str) -> dict[str, Any]:
  """Returns a config with all defaults, and the named parts of `decoders`."""
  changed = copy.deepcopy(dict(config))
  decoders.add(changed, names)
  return settings.with_defaults(changed)


def _sections(section: Mapping, weights: Mapping) -> dict[str, Any]:
  return {
    'bottleneck': section,
    'loss': {'weights': weights},
  }
