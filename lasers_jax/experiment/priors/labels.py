"""Labels of images, as a prior takes them."""

from collections.abc import Sequence

import numpy as np

from lasers_jax.errors import InputError, nearest

CLASSES = 'classes'  # the key of their names, beside the fingerprints of data
SHOWN = 16  # classes of a picture, at most


def classes_of(
  labels: np.ndarray, names: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
  """Finds the classes of the training images.

  Args:
    labels: int [n]; -1 for an image without one.
    names: of the classes, where the data have them.

  Returns:
    The labels, where images without one have "no class" (the number of
    classes), and the names of the classes: [] where no image has a label.
  """
  if labels.max(initial=-1) < 0:
    return np.zeros_like(labels), []
  count = max(len(names or ()), int(labels.max()) + 1)
  found = [*(names or ()), *map(str, range(len(names or ()), count))]
  return np.where(labels < 0, count, labels), found


def labels_for(
  labels: np.ndarray, names: Sequence[str], split: str
) -> np.ndarray:
  """Returns the labels of other images, as `classes_of` returns them.

  Raises:
    InputError: an image is of a class that no training image has.
  """
  count = len(names)
  if not count:
    return np.zeros_like(labels)
  wrong = labels[labels >= count]
  if wrong.size:
    raise InputError(
      f'the split {split!r} has an image of the class {wrong[0]}, and the '
      f'prior knows the {count} classes of the training images'
    )
  return np.where(labels < 0, count, labels)


def shown_classes(names: Sequence[str]) -> list[int]:
  """Returns the numbers of the classes that a picture has room for.

  They are evenly spread. Without classes it is 0, which is "no class".
  """
  numbers = np.linspace(0, max(len(names) - 1, 0), SHOWN)
  return np.unique(numbers.astype(int)).tolist()


def find_class(word: str, names: Sequence[str]) -> int:
  """Returns the number of a class by its name or number.

  Raises:
    InputError: there are no classes, or none of this name.
  """
  if not names:
    raise InputError(
      f'there is no class {word!r}: the prior was trained on images without '
      'labels'
    )
  if word in names:
    return list(names).index(word)
  if word.isdecimal() and int(word) < len(names):
    return int(word)
  raise InputError(
    f'there is no class {word!r}: the classes are {", ".join(names[:20])}, or '
    f'0 to {len(names) - 1}{nearest(word, names)}'
  )
