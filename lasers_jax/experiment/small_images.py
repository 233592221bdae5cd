"""The codecs that send the small image of a super-resolution."""

import functools

from lasers_jax.data import DataSettings
from lasers_jax.degradations import Degradation
from lasers_jax.degradations.baselines import Missing
from lasers_jax.degradations.superres import SuperResolution
from lasers_jax.errors import InputError
from lasers_jax.evaluation.rate_distortion import Coder
from lasers_jax.evaluation.sending import WEBP, Senders, send_small
from lasers_jax.experiment.codecs import Choice
from lasers_jax.experiment.loading import load

PHOTO_CODEC = 'photo-codec'
STEPS = {'step': 0.4}, {}, {'step': 0.12}  # whose files come with the model
MINIMUM_SIDE = 32  # of a small image


def senders(
  degradation: Degradation, data: DataSettings, bits_per_pixel: float | None
) -> Senders:
  """Returns what sends small images as files: by WebP, and by `photo-codec`.

  Args:
    bits_per_pixel: of the result, at most; None sends nothing.
  """
  if not bits_per_pixel or not isinstance(degradation, SuperResolution):
    return {}
  side = data.side // degradation.scale
  codec = _too_small(side) if not data.whole and side < MINIMUM_SIDE else None
  return {
    'webp_small': functools.partial(send_small, WEBP, bits_per_pixel),
    'photo_codec_small': codec or _photo_codec(bits_per_pixel),
  }


def _too_small(side: int) -> Missing:
  return Missing(
    f'{PHOTO_CODEC} sends small images from {MINIMUM_SIDE} pixels up, and '
    f'these have {side}: a large part of a file would be its header'
  )


def _photo_codec(bits_per_pixel: float):
  model, coders = load(PHOTO_CODEC), []
  try:
    for changes in STEPS:
      codec = model.encoder(Choice(changes, context=True))
      coders.append(Coder(PHOTO_CODEC, '', codec.encode, codec.decode))
  except InputError as error:  # there is no range coder
    return Missing(str(error))
  return functools.partial(send_small, coders, bits_per_pixel)
