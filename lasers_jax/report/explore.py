"""Renders the codes of one image as a page that takes them apart: one file.

The page has a script and no network: its pictures and numbers lie in it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lasers_jax.report import charts, grids
from lasers_jax.report.document import Origin, sections, template
from lasers_jax.report.panels import picture

GAIN = 5  # of the errors that are shown
LISTED = 12  # parts of a site
USED = 64  # parts of the image that are listed
_COLUMNS = 32  # pictures in a line of a sheet


class Stop(NamedTuple):
  """One position of the slider.

  Attributes:
    name: what it is, in words.
    image: decoded, uint8 [h, w, 3].
    psnr: in dB.
    bits: of the image.
    is_file: whether these are of a real file, or nominal.
    code: which of `Exploration.codes` it is decoded from.
    used: how many parts of each site are used, the first ones.
  """

  name: str
  image: np.ndarray
  psnr: float
  bits: float
  is_file: bool
  code: int
  used: int


class Code(NamedTuple):
  """A code of the image, as the page lists it.

  Attributes:
    indices: int [H, W, M], atoms or codes of each site, M at most LISTED.
    amounts: float [H, W, M], their coefficients; 0 where there is none.
    counts: int [H, W], all parts of each site.
    bits: [H, W], by the probabilities of a file; None where there are none.
  """

  indices: np.ndarray
  amounts: np.ndarray
  counts: np.ndarray
  bits: np.ndarray | None


class Added(NamedTuple):
  """What parts add to the image.

  Attributes:
    pictures: uint8 [n, s, s, 3], differences around grey.
    firsts: by row and column of a site the number of its first picture; those
      of its other parts follow.
    peaks: the largest differences, of 255: [n].
    gain: of the differences that are shown.
    every: the sites of each so many rows and columns have pictures.
    most: parts of a site that have pictures.
  """

  pictures: np.ndarray
  firsts: Mapping[tuple[int, int], int]
  peaks: np.ndarray
  gain: float
  every: int
  most: int


class Use(NamedTuple):
  """How often the parts of a code are used.

  Attributes:
    counts: int [A], sites of the image that use each.
    pictures: uint8 [n, s, s, 3], the most used ones decoded alone.
    numbers: int [n], which they are.
    patterns: how many different codes sites have.
  """

  counts: np.ndarray
  pictures: np.ndarray
  numbers: np.ndarray
  patterns: int


class Exploration(NamedTuple):
  """The codes of an image, taken apart.

  Attributes:
    title: of the page.
    image: uint8 [h, w, 3].
    stride: pixels along a side of a site.
    slider: what the positions differ in; '' where there is one alone.
    stops: its positions, those of fewer bits first.
    start: the position of the model as it was trained.
    codes: of the stops.
    names: a word and a count for each group of atoms or codes.
    added: of the code of `start`; None where codes are no sums.
    use: of the code of `start`.
    nominal: bits of a site, of fixed length.
    size: bytes of the file of the whole code; None where no codec is fitted.
    facts: names and values, in words.
    remarks: sentences on what is shown, and what is not.
  """

  title: str
  image: np.ndarray
  stride: int
  slider: str
  stops: list[Stop]
  start: int
  codes: list[Code]
  names: tuple[tuple[str, int], ...]
  added: Added | None
  use: Use
  nominal: float
  size: int | None
  facts: list[tuple[str, str]]
  remarks: list[str]


def render(found: Exploration, origin: Origin) -> str:
  """Returns the page as HTML, a function of its arguments alone."""
  ramp = charts.heat(np.linspace(0, 1, 128)[None], 1.0)
  counts = found.use.counts
  return template('explore.html.jinja').render(
    title=found.title,
    found=found,
    gain=GAIN,
    has_map=found.codes[0].bits is not None,
    ramp=picture(ramp),
    whole=_in_a_file(found),
    added=found.added and _about(found.added),
    at=found.stops[found.start].name if len(found.codes) > 1 else '',
    used=_used(found),
    shown=len(found.use.pictures) > 0,
    distinct=int(np.sum(counts > 0)),
    highest=int(counts.max(initial=0)),
    total=int(counts.sum()),
    sites=found.codes[0].counts.size,
    bars=_bars(counts),
    unit=unit(found.names),
    data=_data(found),
    origin=origin,
    config=sections(origin.config),
  )


def unit(names: tuple[tuple[str, int], ...]) -> str:
  """Returns the word for a part, such as 'atom'."""
  words = {name.rpartition(', ')[2] for name, count in names if count}
  return words.pop() if len(words) == 1 else 'part'


def label(names: tuple[tuple[str, int], ...], index: int) -> str:
  """Returns the name of a part by its number, such as 'level 2, code 37'."""
  for name, count in names:
    if index < count:
      return f'{name} {index}'
    index -= count
  raise IndexError(index)


def _data(found: Exploration) -> dict[str, Any]:
  """Returns what the script reads, as JSON has it."""
  pixels = found.image.shape[0] * found.image.shape[1]
  return {
    'size': found.image.shape[:2],
    'sites': found.codes[0].counts.shape,
    'stride': found.stride,
    'original': picture(found.image),
    'start': found.start,
    'stops': [
      {
        'name': stop.name,
        'image': picture(stop.image),
        'error': picture(grids.error_image(found.image, stop.image, GAIN)),
        'psnr': f'{stop.psnr:.2f} dB',
        'rate': f'{stop.bits / pixels:.3f}',
        'remark': _bits_in_words(stop),
        'code': stop.code,
        'used': stop.used,
      }
      for stop in found.stops
    ],
    'codes': [{**_code(x), **_map(x)} for x in found.codes],
    'names': found.names,
    'unit': unit(found.names),
    'weighted': _is_weighted(found.codes),
    'added': found.added and _added(found.added, found.codes[0].counts.shape),
    'alone': _sheet(found.use.pictures)
    | {'places': {int(x): i for i, x in enumerate(found.use.numbers)}},
  }


def _is_weighted(codes: list[Code]) -> bool:
  """Returns whether coefficients say more than that a part is there."""
  return any(not np.isin(x.amounts, (0, 1)).all() for x in codes)


def _in_a_file(found: Exploration) -> tuple[str, str] | None:
  """Returns bits per pixel of a file, and its bytes, beside nominal ones."""
  if found.size is None or found.stops[found.start].is_file:
    return None
  pixels = found.image.shape[0] * found.image.shape[1]
  return f'{8 * found.size / pixels:.3f}', f'whole code: {found.size:,} bytes'


def _about(added: Added) -> str:
  """Returns how what parts add was found."""
  text = (
    'Alone: decoded by itself, its contrast stretched. Adds here: the decoded '
    'surroundings with it, less those without it, around grey, × '
    f'{added.gain:.1f}; "up to" is the largest difference, of 255.'
  )
  if added.every > 1:
    text += f' One of {added.every} × {added.every} sites has such pictures.'
  return text


def _bits_in_words(stop: Stop) -> str:
  if stop.is_file:
    return f'of a real file of {stop.bits / 8:,.0f} bytes'
  return f'nominal, of fixed length: {stop.bits:,.0f} bits'


def _code(code: Code) -> dict[str, Any]:
  """Returns lists of the parts in use, site by site."""
  indices, amounts = (x.reshape(-1, x.shape[-1]) for x in code[:2])
  used = amounts != 0
  return {
    'indices': [x[u].tolist() for x, u in zip(indices, used, strict=True)],
    'amounts': [
      [float(f'{a:.3g}') for a in x[u]]
      for x, u in zip(amounts, used, strict=True)
    ],
    'counts': code.counts.ravel().tolist(),
  }


def _map(code: Code) -> dict[str, Any]:
  """Returns the bits of each site, the map of them, and its brightest."""
  if code.bits is None:
    return {'bits': None}
  top = float(np.percentile(code.bits, 99.5))
  return {
    'bits': code.bits.ravel().round(1).tolist(),
    'map': picture(charts.heat(code.bits, top)),
    'top': f'{top:.3g}',
  }


def _added(added: Added, sites: tuple[int, int]) -> dict[str, Any]:
  return {
    **_sheet(added.pictures),
    'firsts': {y * sites[1] + x: n for (y, x), n in added.firsts.items()},
    'peaks': added.peaks.astype(float).round(1).tolist(),
    'most': added.most,
    'every': added.every,
  }


def _sheet(pictures: np.ndarray) -> dict[str, Any]:
  """Returns pictures [n, s, s, 3] in lines of one picture."""
  n, side = pictures.shape[:2]
  lines = max(1, -(-n // _COLUMNS))
  full = np.full((lines * _COLUMNS, side, side, 3), 128, np.uint8)
  full[:n] = pictures
  full = full.reshape(lines, _COLUMNS, side, side, 3).swapaxes(1, 2)
  whole = full.reshape(lines * side, _COLUMNS * side, 3)
  return {'sheet': picture(whole), 'columns': _COLUMNS, 'lines': lines}


def _used(found: Exploration) -> list[tuple[int, str, int]]:
  """Returns the most used parts: number, name, sites that use each."""
  counts = found.use.counts
  order = np.argsort(-counts, kind='stable')[:USED]
  return [
    (int(i), label(found.names, i), int(counts[i])) for i in order if counts[i]
  ]


def _bars(counts: np.ndarray) -> str:
  """Returns the outline of a chart of uses by rank, in a square of 100."""
  ranked = np.sort(counts[counts > 0])[::-1]
  tops = 100 - 100 * ranked / max(1, ranked.max(initial=0))
  ends = np.linspace(0, 100, len(ranked) + 1)
  steps = [f'V{y:.2f}H{x:.2f}' for y, x in zip(tops, ends[1:], strict=True)]
  return f'M0 100{"".join(steps)}V100Z'
