"""The contract of priors over maps."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.core.ranges import Amount, Count, Fraction, Whole, check_fields
from lasers_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class DrawingSettings:
  """Settings by which a prior draws.

  Attributes:
    guidance: g of u + g (c - u), where c is predicted with the class and u
      without (J. Ho and T. Salimans, arXiv 2207.12598; there, g is 1 + w). 1
      is no guidance.
  """

  guidance: Amount = 1.0

  def __post_init__(self):
    check_fields(self)


class Known(NamedTuple):
  """The sites that are given, when the rest of a map is drawn.

  Attributes:
    view: an array of all sites; what it holds elsewhere does not matter.
    sites: bool [B, H, W], True where the view is given.
  """

  view: Any
  sites: Any


class MapPrior(nn.Module):
  """Models a view of images: their codes, or latents, a map for each.

  Events are int32 [B, H, W, P] (see `layout`), latents float32 [B, H, W, D]. A
  subclass defines `__call__` and `draw`, and `bits` where it has any. Its
  fields, besides those that say what is modelled (`sites`, `classes`, and
  `layout` or `D`), are the keys of the section `prior` of a config.

  Labels are int32 [B] from 0 to `classes`: the last means "no class" (∅), all
  there is where `classes` is 0.

  Random draws of a loss take the key stream `prior`, dropout the stream
  `dropout`.

  Attributes:
    GIVEN: fields that say what is modelled.
    VIEWS: the views that it can model, of 'codes', 'z' and 'quantized'.
    EXACT: whether `bits` are those of a code (True), at most an upper bound
      (False), or not there at all (None).
    Drawing: dataclass of the section `drawing`.
    sites: H and W.
    classes: of the labels; 0 without labels.
    width: of the transformer.
    layers: of the transformer.
    heads: of attention.
    dropout: fraction of activations dropped in training.
    label_dropout: fraction of labels replaced by "no class" in training, so
      that draws can be guided.
    remat: whether each layer is computed again in the backward pass, which
      saves memory.
    dtype: of activations; parameters, norms, logits and losses are float32.
  """

  GIVEN: ClassVar[tuple[str, ...]] = ('sites', 'classes', 'layout', 'D')
  VIEWS: ClassVar[tuple[str, ...]] = ('codes',)
  EXACT: ClassVar[bool | None] = None
  Drawing: ClassVar[type[DrawingSettings]] = DrawingSettings

  sites: tuple[int, int] = (1, 1)
  classes: Whole = 0
  width: Count = 128
  layers: Count = 4
  heads: Count = 4
  dropout: Fraction = 0.1
  label_dropout: Fraction = 0.1
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  def check(self) -> None:
    """Raises InputError if fields are out of range or contradict each other."""
    check_fields(self)
    if self.width % (4 * self.heads):
      raise InputError(
        f'prior.width={self.width} must be a multiple of 4 × heads '
        f'(prior.heads={self.heads}): a head turns by rows and by columns'
      )

  def check_drawing(self, drawing: DrawingSettings) -> None:
    """Raises InputError for guidance without what it was to be trained with."""
    if drawing.guidance != 1 and not self.classes:
      raise InputError(
        f'guidance={drawing.guidance} needs a prior of labelled images: this '
        'one has no classes'
      )
    if drawing.guidance != 1 and not self.label_dropout:
      raise InputError(
        f'guidance={drawing.guidance} needs a prior trained with '
        'prior.label_dropout above 0: this one has never drawn without a class'
      )

  def __call__(
    self, view: Array, labels: Array, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """Returns the loss of each image [B], and scalars for the log.

    For codes the loss is in bits a site. In training, some labels are dropped.
    """
    raise NotImplementedError

  def value_axes(self, names: Sequence[str]) -> Sequence[int]:
    """Says which axis of an array has the values of an event.

    It is split along the mesh axis `model`.

    Args:
      names: of the path of the array.

    Returns:
      The number of the axis, if there is one.
    """
    del names
    return ()

  def initialize(
    self, view: np.ndarray, quantized: np.ndarray | None = None
  ) -> None:
    """Learns statistics of some of the training view; writes `codebook`.

    Computed on the host in float64, so not to be traced.

    Args:
      view: [n, H, W, ...].
      quantized: float32 [n, H, W, D], what the decoder receives of it; for
        priors of codes.
    """
    raise NotImplementedError

  def bits(self, view: Array, labels: Array) -> Array:
    """Returns -log2 p of each event, or what bounds it: [B, H, W, P]."""
    raise NotImplementedError

  def draw(
    self,
    keys: Array,
    labels: Array,
    drawing: DrawingSettings,
    known: Known | None = None,
  ) -> Array:
    """Draws a view for each label.

    Args:
      keys: [B], one for each image: it depends on its own key alone.
      drawing: a `Drawing`.
      known: sites that are given; None draws all.
    """
    raise NotImplementedError

  def drop_labels(self, labels: Array, train: bool) -> Array:
    """Returns labels, some of which say "no class" in training."""
    if not train or not self.classes or not self.label_dropout:
      return labels
    key = self.make_rng('prior')
    dropped = jax.random.bernoulli(key, self.label_dropout, labels.shape)
    return jnp.where(dropped, self.classes, labels)
