"""Images that are degraded already, for a model that restores them."""

from typing import Any

import numpy as np

from lasers_jax.degradations import DEGRADATIONS, Degradation, prepared
from lasers_jax.errors import InputError


def name_of(degradation: Degradation) -> str:
  """Returns the name of a degradation in a config."""
  kinds = DEGRADATIONS.items()
  return next(name for name, kind in kinds if kind is type(degradation))


def prepare(
  degradation: Degradation | None, images: np.ndarray, mask: Any = None
) -> list[np.ndarray]:
  """Returns what the encoder sees of degraded images [B, h, w, 3].

  Args:
    mask: bool [B, h, w] or [h, w], true in the holes; None without one.

  Raises:
    InputError: there is no degradation, or a mask does not fit.
  """
  if degradation is None:
    raise InputError(
      'the model restores nothing: it was trained without a section degradation'
    )
  if mask is None:
    masks = [None] * len(images)
  else:
    mask = np.asarray(mask)
    if mask.dtype != bool:
      raise InputError(f'mask must be bool, true in the holes: {mask.dtype}')
    masks = mask if mask.ndim == 3 else [mask] * len(images)
  if len(masks) != len(images):
    raise InputError(f'there are {len(masks)} masks for {len(images)} images')
  pairs = zip(images, masks, strict=True)
  return [prepared(degradation, *pair) for pair in pairs]


def check_same(trained: Degradation | None, asked: Degradation | None) -> None:
  """Raises InputError where a model was trained for another degradation."""
  words = [
    'none' if x is None else f'{name_of(x)} by protocol {x.protocol!r}'
    for x in (trained, asked)
  ]
  if words[0] != words[1]:
    raise InputError(
      f'the model was trained for degradation {words[0]}, not {words[1]}: '
      'train another one'
    )
