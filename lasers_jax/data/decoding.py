"""Decodes image files to sRGB, uint8 [h, w, 3]."""

import contextlib
import functools
import io
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

try:
  import simplejpeg
except ImportError:  # then Pillow decodes all
  simplejpeg = None

# Two 255ths: the rounding of a profile that is sRGB by another maker.
_ROUNDING = 2
_MODES = {'RGB': 'RGB', 'GRAY': 'L', 'CMYK': 'CMYK'}  # of colour spaces


def decode(file: str | os.PathLike | BinaryIO) -> np.ndarray:
  """Reads an image file as sRGB, uint8 [h, w, 3], the right way up (EXIF).

  Colours are converted from an embedded profile to sRGB, by the perceptual
  intent; a profile that cannot be used is ignored. Grey and palette become RGB,
  transparency is laid over white, 16-bit grey is scaled to 8 bits, and an
  animation gives its first frame. Raises OSError, SyntaxError or ValueError
  where the file is no readable image, or is too large.
  """
  with _opened(file) as image:
    pixels = _by_simplejpeg(image)
    return _as_rgb(image) if pixels is None else pixels


def decode_reduced(
  file: str | os.PathLike | BinaryIO, side: int
) -> tuple[np.ndarray, tuple[int, int]]:
  """Decodes as `decode`, and a JPEG at a part of its size where that is enough.

  That is a half, a quarter or an eighth, as long as no side is shorter than
  `side`: faster, with other pixels. One that must be turned is decoded whole.

  Returns:
    The image, and the height and width that it has when decoded whole.
  """
  with _opened(file) as image:
    whole = image.height, image.width
    if _is_upright(image):
      image.draft(None, (side, side))
      return _as_rgb(image), whole
    pixels = _as_rgb(image)
    return pixels, pixels.shape[:2]


@contextlib.contextmanager
def _opened(file: str | os.PathLike | BinaryIO) -> Iterator[Image.Image]:
  """Opens an image; raises OSError, SyntaxError or ValueError, no others."""
  try:
    with Image.open(file) as image:
      yield image
  except (OSError, SyntaxError, ValueError):
    raise
  except Exception as error:  # a damaged file may raise whatever it likes
    raise ValueError(_reason(error)) from error


def _is_upright(image: Image.Image) -> bool:
  return image.getexif().get(ExifTags.Base.Orientation, 1) == 1


def _by_simplejpeg(image: Image.Image) -> np.ndarray | None:
  """Decodes a plain JPEG faster, to the same pixels; None for all others.

  What it does not decode without a warning is left to Pillow.
  """
  if simplejpeg is None or (image.format, image.mode) != ('JPEG', 'RGB'):
    return None
  if not _is_upright(image):
    return None
  profile = image.info.get('icc_profile')
  if profile and _transform(profile, 'RGB')[1]:
    return None
  image.fp.seek(0)
  try:
    return simplejpeg.decode_jpeg(image.fp.read(), 'RGB')
  except ValueError:
    return None
  finally:
    image.fp.seek(0)


class Look(NamedTuple):
  """The size of an image file that was read to its end, and its faults."""

  height: int  # before it is turned
  width: int
  fault: str | None = None  # why the image cannot be used
  profile: str | None = None  # why its colour profile cannot be used


def look(file: str | os.PathLike) -> Look:
  """Reads an image file to its end, as cheaply as possible; never raises."""
  size = 0, 0
  try:
    with Image.open(file) as image:
      size = image.height, image.width
      # An eighth of the side: a JPEG is read to its end, at a low cost.
      image.draft(None, (1, 1))
      _as_rgb(image)
      return Look(*size, None, _profile_fault(image))
  except Exception as error:
    return Look(*size, _reason(error))


def _reason(error: Exception) -> str:
  if isinstance(
    error, Image.DecompressionBombError | Image.DecompressionBombWarning
  ):
    return f'too large: more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels'
  if isinstance(error, MemoryError):
    return 'too large for the memory that is left'
  said = str(error).partition(' <_io.')[0]  # an object without a name
  return ' '.join(said.split()) or type(error).__name__


def _as_rgb(image: Image.Image) -> np.ndarray:
  profile = image.info.get('icc_profile')
  image = ImageOps.exif_transpose(image)
  if image.mode == 'F':
    raise ValueError('floating-point image: its range is not known')
  if image.mode.startswith('I'):
    grey = (np.asarray(image).clip(0, 65535).astype(np.int32) + 128) // 257
    image = Image.fromarray(grey.astype(np.uint8))
  colours = _in_srgb(image, profile)
  if image.has_transparency_data:
    colours.putalpha(image.convert('RGBA').getchannel('A'))
    white = Image.new('RGBA', image.size, 'white')
    colours = Image.alpha_composite(white, colours).convert('RGB')
  return np.asarray(colours)


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
  if profile:
    mode, transform, _ = _transform(profile, _own_mode(image))
    if transform:
      return ImageCms.applyTransform(image.convert(mode), transform)
  return image.convert('RGB')


def _own_mode(image: Image.Image) -> str:
  if image.mode == 'CMYK':
    return 'CMYK'
  grey = image.mode in ('1', 'L', 'LA', 'La') or image.mode[0] == 'I'
  return 'L' if grey else 'RGB'


def _profile_fault(image: Image.Image) -> str | None:
  profile = image.info.get('icc_profile')
  return _transform(profile, _own_mode(image))[2] if profile else None


@functools.lru_cache(64)
def _transform(
  profile: bytes, own: str
) -> tuple[str, ImageCms.ImageCmsTransform | None, str | None]:
  """Builds the transform from a profile to sRGB of an image of mode `own`.

  Returns:
    The mode that the transform takes, the transform, and the reason why there
    is none; neither for sRGB.
  """
  try:
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    mode = _MODES.get(space)
    # Many a grey image has the profile of the colours it once had.
    if mode != own and (mode, own) != ('RGB', 'L'):
      return own, None, f'a profile of {space or "nothing"} in a {own} image'
    transform = ImageCms.buildTransform(
      opened, ImageCms.createProfile('sRGB'), mode, 'RGB',
      flags=ImageCms.Flags.NOCACHE,  # with it, threads may share one
    )  # fmt: skip
    if mode != 'CMYK' and _changes_nothing(transform, mode):
      return mode, None, None
  except Exception as error:  # a damaged profile, too
    return own, None, _reason(error)
  return mode, transform, None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
  """Returns whether a transform to sRGB leaves all colours as they are."""
  steps = np.arange(0, 256, 15 if mode == 'RGB' else 1, np.uint8)
  if mode == 'RGB':
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    image = Image.fromarray(grid)
  else:
    image = Image.fromarray(steps[None])
  before = np.asarray(image.convert('RGB'), np.int32)
  after = np.asarray(ImageCms.applyTransform(image, transform), np.int32)
  return bool(np.abs(after - before).max() <= _ROUNDING)
