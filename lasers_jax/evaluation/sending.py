"""Sends the small image of a super-resolution as a file, and enlarges it."""

import bisect
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lasers_jax.degradations.baselines import Missing, baselines
from lasers_jax.degradations.superres import SuperResolution
from lasers_jax.evaluation.rate_distortion import Coder, by_pillow

# Of what is observed and what is known, the result and its bits per pixel.
Send = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]
Senders = Mapping[str, Send | Missing]

WEBP = [by_pillow('WEBP', quality) for quality in range(101)]


def send_small(
  coders: Sequence[Coder],
  bits_per_pixel: float,
  small: np.ndarray,
  known: np.ndarray,
) -> tuple[np.ndarray, float]:
  """Sends a small image as a file, and enlarges what arrives by Keys' cubic.

  Args:
    coders: the settings of a codec, from small files to large ones.
    bits_per_pixel: of the result, at most; the last coder whose file is within
      is taken, and the first one where none is.
    small: float32 [h, w, 3] in [0, 1].
    known: bool [height, width] of the result.

  Returns:
    The result [height, width, 3], and its bits per pixel.
  """
  height, width = known.shape
  pixels = np.round(255 * small).astype(np.uint8)

  def bits_of(coder: Coder) -> float:
    return 8 * len(coder.encode(pixels)) / (height * width)

  # Nearly always, more quality takes more bytes.
  fitting = bisect.bisect_right(coders, bits_per_pixel, key=bits_of)
  coder = coders[max(fitting - 1, 0)]
  data = coder.encode(pixels)
  arrived = coder.decode(data).astype(np.float32) / 255
  enlarge = baselines(SuperResolution())['bicubic']
  assert not isinstance(enlarge, Missing)
  return enlarge(arrived, known), 8 * len(data) / (height * width)
