"""The contract of degradations: pure functions of an image and a key."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.core.images import to_float
from lasers_jax.core.ranges import Seed
from lasers_jax.errors import InputError, unknown

PROTOCOLS = {
  'code': 'code only: the decoder sees the code alone',
  'input': (
    'with the input: the decoder sees the degraded image, too; known pixels '
    'are pasted'
  ),
}
# (images, restored, known, sizes) -> float32 [B], as a metric of single images.
Measure = Callable[[Array, Array, Array, Array | None], Array]


class Degraded(NamedTuple):
  """Degraded images.

  Attributes:
    inputs: what the encoder sees, float32 [B, h, w, 3 + extra].
    weights: of the pixel loss, [B, h, w, 1]; 1 where nothing is said.
    known: 1 where the input is the truth, [B, h, w, 1]; 0 everywhere but in
      inpainting.
  """

  inputs: Array
  weights: Array
  known: Array


@dataclasses.dataclass(frozen=True)
class Degradation:
  """Settings of a degradation, and the function that they make.

  A subclass computes one image in `__call__`; its fields are the keys of the
  section `degradation`.

  Attributes:
    extra: channels of the input besides RGB.
    takes_mask: whether the last of them is a mask, 1 in the holes.
    protocol: 'code', where the decoder sees the code alone; or 'input', where
      it sees the degraded image, too. Results of the two do not compare.
    seed: of evaluation, where the damage is a function of it and of the image's
      number in its split.
  """

  extra: ClassVar[int] = 0
  takes_mask: ClassVar[bool] = False

  protocol: str = 'code'
  seed: Seed = 0

  def __post_init__(self):
    if self.protocol not in PROTOCOLS:
      raise unknown('degradation.protocol', self.protocol, PROTOCOLS)

  @property
  def weighs_pixels(self) -> bool:
    """Returns whether weights of the pixel loss may differ from 1."""
    return False

  @property
  def channels(self) -> int:
    """Returns the channels of the encoder's input."""
    return 3 + self.extra

  def __call__(self, image: Array, key: Array) -> Degraded:
    """Degrades one image [h, w, 3] in [0, 1]; arrays without B."""
    raise NotImplementedError

  def in_evaluation(self, image: np.ndarray, key: Array) -> Degraded:
    """Degrades one image uint8 [h, w, 3] by the program that is the standard.

    Here `__call__`; a subclass whose `__call__` simulates a program runs it.
    """
    return _alone(self, image, key)

  def observed(self, image: np.ndarray, degraded: Degraded) -> np.ndarray:
    """Returns what classical methods start from: here the input's colours.

    Args:
      image: uint8 [h, w, 3], the truth.
      degraded: what this made of it.
    """
    del image
    return np.asarray(degraded.inputs[..., :3])

  def prepare(self, image: Array, mask: Array | None) -> Array:
    """Returns the encoder's input of an image that is degraded already.

    Args:
      image: [h, w, 3] in [0, 1].
      mask: bool [h, w], where there are holes; None unless `takes_mask`.
    """
    del mask
    return image

  def check(self, height: int, width: int) -> None:
    """Raises InputError where images of these sides cannot be degraded."""
    del height, width

  def measures(self) -> Mapping[str, Measure]:
    """Returns the metrics of this restoration, by their names in METRICS."""
    return {}

  def scores(
    self, images: Array, restored: Array, known: Array, sizes: Array | None
  ) -> dict[str, Array]:
    """Computes the metrics of this restoration: [B] each.

    Args:
      images, restored: [B, h, w, 3] in [0, 1].
      known: [B, h, w, 1], 1 where the input is the truth.
      sizes: as of metrics of single images.
    """
    return {
      name: measure(images, restored, known, sizes)
      for name, measure in self.measures().items()
    }


def degrade(settings: Degradation, images: Array, keys: Array) -> Degraded:
  """Degrades images [B, h, w, 3] in [0, 1]; returns what a model starts from.

  It is pure: an image and its key alone decide what becomes of it.

  Args:
    settings: of a degradation.
    keys: [B], one key an image.
  """
  settings.check(*images.shape[1:3])
  return jax.vmap(settings)(images, keys)


def row_keys(key: Array, count: int) -> Array:
  """Returns a key for each row of a batch: [count]."""
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(count))


def whole(inputs: Array) -> Degraded:
  """Returns inputs [h, w, c] where nothing is known and all counts alike."""
  plane = inputs[..., :1]
  return Degraded(inputs, jnp.ones_like(plane), jnp.zeros_like(plane))


def in_evaluation(
  settings: Degradation, image: np.ndarray, index: int
) -> Degraded:
  """Degrades image `index` of a split as every evaluation does.

  One image at a time on the host's processor, so that models, batches, meshes
  and machines all meet the same damage.

  Args:
    image: uint8 [h, w, 3].

  Returns:
    NumPy arrays [h, w, ...].
  """
  settings.check(*image.shape[:2])
  with _on_host():
    key = jax.random.fold_in(jax.random.key(settings.seed), index)
    return jax.device_get(settings.in_evaluation(image, key))


def prepared(
  settings: Degradation, image: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
  """Returns the encoder's input of an image that is degraded already.

  Args:
    image: [h, w, 3], uint8 or float in [0, 1].
    mask: bool [h, w], where there are holes.

  Raises:
    InputError: a mask is missing, not taken, or of another size.
  """
  if (mask is None) == settings.takes_mask:
    wants = 'needs a mask' if settings.takes_mask else 'takes no mask'
    raise InputError(
      f'this restoration {wants}: bool [h, w], true in the holes'
    )
  if mask is not None and mask.shape != image.shape[:2]:
    raise InputError(
      f'the mask is {_by(mask.shape)} and the image {_by(image.shape[:2])}: '
      'they must be of one size'
    )
  with _on_host():
    return jax.device_get(_prepare(settings, image, mask))


def _on_host() -> contextlib.AbstractContextManager:
  """A context that computes on the host's processor."""
  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError:  # JAX_PLATFORMS names others alone
    return contextlib.nullcontext()


def _by(sides: tuple[int, ...]) -> str:
  return 'x'.join(map(str, sides))


def _jitted(function):
  return jax.jit(function, static_argnums=0)


@_jitted
def _alone(settings, image, key):
  return settings(to_float(image), key)


@_jitted
def _prepare(settings, image, mask):
  return settings.prepare(to_float(image), mask)
