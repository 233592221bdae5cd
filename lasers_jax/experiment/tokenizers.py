"""Takes the networks of a config from a tokenizer that is trained already.

It may be a model of this project or one of `pretrained.tokenizers`.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from lasers_jax.core import storage
from lasers_jax.errors import InputError, shown
from lasers_jax.experiment import sections
from lasers_jax.networks import NETWORKS
from lasers_jax.pretrained.tokenizers import SCHEME, read_tokenizer
from lasers_jax.training import workdir

_FREE = ('dtype',)  # of the computation: weights have none


@dataclasses.dataclass(frozen=True)
class SourceSettings:
  """Says where the weights of the networks come from.

  Attributes:
    pretrained: a workdir, an exported model or a tokenizer of another project,
      from which a run begins; '' begins from random weights.
    frozen: whether these weights stay as they are.
    source_hash: of the weights, which a run writes into its config.
  """

  pretrained: str = ''
  frozen: bool = False
  source_hash: str = ''

  def __post_init__(self):
    if self.frozen and not self.pretrained:
      raise InputError(
        'network.frozen=true keeps weights as they are: name the model that '
        'they are of, network.pretrained=PATH'
      )


_KEYS = tuple(field.name for field in dataclasses.fields(SourceSettings))


def parted(
  network: Mapping[str, Any],
) -> tuple[SourceSettings, dict[str, Any]]:
  """Returns where networks come from, and the rest of their section."""
  own = {k: v for k, v in network.items() if k in _KEYS}
  rest = {k: v for k, v in network.items() if k not in _KEYS}
  return sections.build(SourceSettings, own, 'network'), rest


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config with the fields of the networks that it begins from.

  The config of a workdir has them already, and stays as it is.

  Raises:
    InputError: there is no such tokenizer, or the config contradicts it.
  """
  network = sections.section(config.get('network', {}), 'network')
  source, given = parted(network)
  if not source.pretrained or source.source_hash:
    return dict(config)
  path = located(source)
  found = _fields(path)
  for key, value in given.items():
    known = found.get(key, value)
    if key not in _FREE and _plain(value) != _plain(known):
      raise InputError(
        f'network.{key} is {shown(value)} in the config and {shown(known)} in '
        f'{path}: leave it out, or name another network.pretrained'
      )
  whole = {**found, **given, **dataclasses.asdict(source), 'pretrained': path}
  return {**config, 'network': whole}


def located(source: SourceSettings) -> str:
  """Returns the absolute path of the weights.

  Raises:
    InputError: there are none.
  """
  path = storage.absolute(source.pretrained.removeprefix(SCHEME))
  if not storage.exists(path) and not storage.is_folder(path):
    raise InputError(
      f'network.pretrained={path} does not exist: bring it back, or say in the '
      'command of the run where it is now'
    )
  return path


def is_ours(path: str) -> bool:
  """Returns whether a folder is a workdir or an exported model."""
  try:
    config = json.loads(storage.read_bytes(os.path.join(path, workdir.CONFIG)))
  except (OSError, ValueError):
    return False
  return isinstance(config, dict) and 'format' in config


def _fields(path: str) -> dict[str, Any]:
  """Returns the section `network` of a tokenizer, with all defaults."""
  if is_ours(path):
    config = workdir.load_config(path)
    if 'network' not in config:
      raise InputError(f'{path} is a prior, and has no networks of images')
    found = parted(config['network'])[1]
  else:
    found = dict(read_tokenizer(path).network)
  encoder, _ = sections.choose(NETWORKS, found, 'network')
  return {**sections.defaults(encoder), **found}


def _plain(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value
