"""Tokenizers of other projects, with the face of a trained model."""

import dataclasses
import os
from typing import Any

import jax
import numpy as np

from lasers_jax.core import sharding, storage
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings, sources
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.pretrained.tokenizers import (
  SCHEME,
  Patches,
  Tokenizer,
  read_tokenizer,
)

_ENDINGS = '.safetensors', '.ckpt', '.pth', '.pt', '.bin', '.onnx'
# Of nothing but evaluation: images are measured whole, a few at a time.
_CONFIG = {
  'steps': 1,
  'batch_size': 1,
  'data': {'name': sources.GIVEN, 'side': 256, 'whole': True},
  'evaluation': {'batch_size': 8},
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ForeignModel(TrainedModel):
  """A tokenizer of another project: all that a trained model does.

  Its latents are in its own space, those of a variational one its means.

  Attributes:
    scale, shift, patches, hash: of its files; see `Tokenizer`.
  """

  scale: np.ndarray
  shift: np.ndarray
  patches: Patches | None
  hash: str

  @property
  def folder(self) -> str:
    path = self.path.removeprefix(SCHEME)
    if self.path.startswith(SCHEME):
      return path
    return f'{os.path.splitext(path)[0]}.lasers_jax'

  def open_split(self, split: str, minimum_side: int = 1) -> Any:
    """Opens a split of the images of the config.

    Raises:
      InputError: it names none, or they cannot be used.
    """
    if self.experiment.data.name == sources.GIVEN:
      raise InputError(
        f'{self.path} was trained elsewhere, and no images are known: name '
        'some (--data=..., data=...)'
      )
    return self.experiment.data.open(split, None, minimum_side)


def is_foreign(path: str) -> bool:
  """Returns whether a path is of a tokenizer of another project."""
  if path.startswith(SCHEME):
    return True
  return path.lower().endswith(_ENDINGS) and not storage.is_folder(path)


def load(path: str) -> ForeignModel:
  """Reads a tokenizer of another project.

  Args:
    path: 'diffusers:FOLDER', or a file of weights.

  Raises:
    InputError: see `read_tokenizer`.
  """
  scheme = SCHEME if path.startswith(SCHEME) else ''
  tokenizer = read_tokenizer(path.removeprefix(SCHEME))
  network, bottleneck = tokenizer.network, tokenizer.bottleneck
  config = settings.with_defaults(
    {**_CONFIG, 'network': network, 'bottleneck': bottleneck}
  )
  experiment = settings.from_config(config)
  mesh = experiment.evaluation_mesh()
  return ForeignModel(
    experiment,
    jax.device_put(_variables(tokenizer), sharding.replicated(mesh)),
    config,
    mesh,
    step=0,
    path=scheme + tokenizer.source,
    scale=tokenizer.scale,
    shift=tokenizer.shift,
    patches=tokenizer.patches,
    hash=tokenizer.hash,
  )


def with_images(
  model: TrainedModel, name: str | None = None, side: int | None = None
) -> TrainedModel:
  """Returns a model whose config names other images.

  Args:
    name: as of `data.name` of a config; None or '' keeps that.
    side: of the squares that are cut out of them; None or 0 keeps that.

  Raises:
    InputError: a value cannot be used.
  """
  changes = {'name': name, 'options': {}} if name else {}
  if side:
    changes |= {'side': side, 'whole': False}
  return model.with_config(data=changes) if changes else model


def _variables(tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns the parameters and statistics of the model of a tokenizer."""
  codebook = {}
  if tokenizer.codebook is not None:
    codes = tokenizer.codebook
    # As if each code had been used once.
    use = np.ones(len(codes), np.float32)
    codebook['bottleneck'] = {'codes': codes, 'sums': codes, 'use': use}
  return {'params': tokenizer.params, 'codebook': codebook}
