"""Degrades the images of an evaluation."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lasers_jax.core.padding import pad
from lasers_jax.degradations import Degradation, Degraded, in_evaluation


def damage(
  degradation: Degradation, batch: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Degrades this process's rows of a batch; each by its number alone.

  Args:
    batch: of `data.evaluation_batches`.

  Returns:
    `inputs` float32 [B, h, w, channels] and `known` [B, h, w, 1], which repeat
    their edges in the padding.
  """
  found = {'inputs': [], 'known': []}
  for image, degraded in each_row(degradation, batch):
    for name, rows in found.items():
      rows.append(pad(getattr(degraded, name), sides=image.shape[:2]))
  return {name: np.stack(rows) for name, rows in found.items()}


def inputs_of(
  degradation: Degradation, batches: Iterable[dict[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
  """Yields batches whose `image` is what the encoder sees: [B, h, w, c]."""
  for batch in batches:
    yield {**batch, 'image': damage(degradation, batch)['inputs']}


def damaged(
  degradation: Degradation, images: Sequence[np.ndarray], indices: Sequence[int]
) -> list[np.ndarray]:
  """Returns what the encoder sees of images uint8 [h, w, 3] of a split.

  Args:
    indices: the numbers of the images in their split.
  """
  pairs = zip(images, indices, strict=True)
  return [in_evaluation(degradation, *pair).inputs for pair in pairs]


def each_row(
  degradation: Degradation, batch: dict[str, np.ndarray]
) -> Iterator[tuple[np.ndarray, Degraded]]:
  """Yields the rows of a batch: the image, padded, and what became of it."""
  columns = (batch[x] for x in ('image', 'index', 'height', 'width'))
  for image, index, h, w in zip(*columns, strict=True):
    # Rows that only fill a batch have no number.
    index = max(int(index), 0)
    yield image, in_evaluation(degradation, image[:h, :w], index)
