"""The table of metrics: one row defines a metric and how it is shown.

A program adds its own metric as a row, METRICS['mine'] = Metric(...), before an
evaluation that names it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import numpy as np

from lasers_jax.errors import InputError, unknown
from lasers_jax.metrics import similarity
from lasers_jax.metrics.base import Extractor, PerImage, Rows, of_function
from lasers_jax.metrics.cmmd import cmmd
from lasers_jax.metrics.frechet import FeatureStatistics, frechet_distance
from lasers_jax.metrics.resize import clean_resize, cmmd_resize
from lasers_jax.pretrained import clip, inception
from lasers_jax.pretrained.lpips import VGG16Features, load_lpips
from lasers_jax.pretrained.weights import read_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
  """A row of METRICS, whose key is the name in results and on a command line.

  Attributes:
    title: the name in tables and reports.
    unit: of the values; '' for none.
    decimals: the number of decimals shown.
    higher_is_better: whether larger values are better.
    over: whether a value is of an 'image' and its reconstruction, of a 'set' of
      images and the set of their reconstructions, or of a 'restoration', which
      measures it where its `Degradation.measures` names it.
    protocol: one line that says how it is measured; results contain it.
    load: maps the file of weights that the user named, or None, to a `PerImage`
      or, over sets, an `Extractor`; of a restoration there is none.
    always: whether every evaluation measures it.
    headline: whether it stands at the top of a report.
    ranks: whether a report shows the best and the worst images by it.
  """

  title: str
  unit: str = ''
  decimals: int = 4
  higher_is_better: bool
  over: Literal['image', 'set', 'restoration'] = 'image'
  protocol: str
  load: Callable[[str | None], PerImage | Extractor] | None = None
  always: bool = False
  headline: bool = False
  ranks: bool = False

  @property
  def heading(self) -> str:
    """Returns the title with the unit."""
    return f'{self.title} in {self.unit}' if self.unit else self.title

  def number(self, value: float) -> str:
    """Returns a value as text, without the unit."""
    return f'{value:.{self.decimals}f}'

  def quantity(self, value: float) -> str:
    """Returns a value as text, with the unit."""
    return f'{self.number(value)} {self.unit}'.strip()


def _lpips(trunk: str, title: str) -> Metric:
  return Metric(
    title=f'LPIPS-{title}',
    higher_is_better=False,
    protocol=f'LPIPS v0.1, {title}',
    load=lambda file: PerImage(*load_lpips(trunk, file)),
    headline=True,
    ranks=True,
  )


def _fd_vgg16(file: str | None) -> Extractor:
  _, params = load_lpips('vgg16', file)
  return Extractor(
    VGG16Features(),
    params,
    lambda images: images.astype(np.float32) / 255,
    FeatureStatistics,
    frechet_distance,
    any_size=True,
  )


def _fid(file: str | None) -> Extractor:
  arrays = read_weights(_needed('fid', file, inception.FILE))

  def prepare(images: np.ndarray) -> np.ndarray:
    return (clean_resize(images, inception.SIDE) - 128) / 128

  return Extractor(
    inception.InceptionV3(),
    inception.inception_params(arrays),
    prepare,
    FeatureStatistics,
    frechet_distance,
  )


def _cmmd(file: str | None) -> Extractor:
  arrays = read_weights(_needed('cmmd', file, clip.FILE))
  tower = clip.clip_tower(arrays)

  def prepare(images: np.ndarray) -> np.ndarray:
    return cmmd_resize(images, tower.side).astype(np.float32) / 255

  return Extractor(
    tower,
    clip.clip_params(arrays),
    prepare,
    Rows,
    lambda a, b: cmmd(a.all, b.all),
  )


def _needed(name: str, file: str | None, which: str) -> str:
  if not file:
    raise InputError(
      f'{name} needs a file of weights, --metric_weights={name}=FILE: {which}'
    )
  return file


def _decibels(title: str, protocol: str) -> Metric:
  return Metric(
    title=title,
    unit='dB',
    decimals=2,
    higher_is_better=True,
    over='restoration',
    protocol=f'dB, peak 1, {protocol}',
  )


_RESTORATION = {
  'psnr_y': _decibels('PSNR of Y', 'luma of BT.601 in studio range'),
  'psnr_y_cropped': _decibels(
    'PSNR of Y, border cut',
    'luma of BT.601 in studio range, `scale` pixels cut off each edge',
  ),
  'consistency': _decibels(
    'consistency', 'the result made small again, against the small image'
  ),
  'psnr_hole': _decibels('PSNR in the hole', 'of the pixels in holes alone'),
  'l1_hole': Metric(
    title='L1 in the hole',
    higher_is_better=False,
    over='restoration',
    protocol='mean absolute error, range 1, of the pixels in holes alone',
  ),
  'hole': Metric(
    title='share of hole',
    decimals=3,
    higher_is_better=False,
    over='restoration',
    protocol='pixels in holes / all pixels',
  ),
  'chroma_error': Metric(
    title='chroma error',
    decimals=2,
    higher_is_better=False,
    over='restoration',
    protocol='mean distance of (a, b) of CIELAB, D65',
  ),
  'colourfulness': Metric(
    title='colourfulness',
    decimals=1,
    higher_is_better=True,
    over='restoration',
    protocol='Hasler and Süsstrunk 2003, of the result, values to 255',
  ),
}

METRICS = {
  'psnr': Metric(
    title='PSNR',
    unit='dB',
    decimals=2,
    higher_is_better=True,
    protocol='dB, peak 1, mean of one value per image',
    load=lambda file: of_function(similarity.psnr),
    always=True,
    headline=True,
    ranks=True,
  ),
  'ssim': Metric(
    title='SSIM',
    higher_is_better=True,
    protocol=(
      'Gaussian 11x11, sigma 1.5, range 1, mean of one value per image'
    ),
    load=lambda file: of_function(similarity.ssim, similarity.SSIM_WINDOW),
    always=True,
    headline=True,
  ),
  'ms_ssim': Metric(
    title='MS-SSIM',
    higher_is_better=True,
    protocol='five scales, Gaussian 11x11, sigma 1.5, range 1',
    load=lambda file: of_function(
      similarity.ms_ssim, similarity.MS_SSIM_MINIMUM
    ),
  ),
  'lpips-vgg16': _lpips('vgg16', 'VGG16'),
  'lpips-alexnet': _lpips('alexnet', 'AlexNet'),
  'fd-vgg16': Metric(
    title='FD-VGG16',
    decimals=3,
    higher_is_better=False,
    over='set',
    protocol=(
      'Fréchet distance to the same images by mean relu4_3 of VGG16, at their '
      'own size: no FID'
    ),
    load=_fd_vgg16,
  ),
  'fid': Metric(
    title='rFID',
    decimals=3,
    higher_is_better=False,
    over='set',
    protocol=(
      'rFID: Fréchet distance to the same images by Inception-2015, resized '
      'as by clean-fid'
    ),
    load=_fid,
  ),
  'cmmd': Metric(
    title='CMMD',
    decimals=3,
    higher_is_better=False,
    over='set',
    protocol='CMMD to the same images by the given CLIP, sigma 10, scale 1000',
    load=_cmmd,
  ),
  **_RESTORATION,
}


def known(names: Iterable[str]) -> dict[str, Metric]:
  """Returns the rows of the names that are metrics, in the table's order."""
  names = set(names)
  return {name: row for name, row in METRICS.items() if name in names}


class Metrics(NamedTuple):
  """Loaded metrics, by name.

  Attributes:
    of_images: metrics with one value for each image and its reconstruction.
    of_sets: metrics with one value for all images and all reconstructions.
  """

  of_images: dict[str, PerImage]
  of_sets: dict[str, Extractor]

  @property
  def modules(self) -> tuple[tuple[str, nn.Module], ...]:
    """Returns the modules of metrics of single images, by name; hashable."""
    return tuple((name, x.module) for name, x in self.of_images.items())

  @property
  def params(self) -> dict[str, Any]:
    """Returns the parameters of these modules, by name."""
    return {name: x.params for name, x in self.of_images.items()}

  @property
  def minimum_sides(self) -> dict[str, int]:
    """Returns the minimum side of an image in pixels, by name."""
    networks = {**self.of_images, **self.of_sets}
    return {
      name: getattr(x.module, 'minimum_side', 1) for name, x in networks.items()
    }

  @property
  def minimum_side(self) -> int:
    """Returns the minimum side of an image in pixels for all metrics."""
    return max(self.minimum_sides.values())

  @property
  def protocol(self) -> dict[str, str]:
    """Returns the lines that say how each is measured, by name."""
    rows = known({**self.of_images, **self.of_sets})
    return {name: row.protocol for name, row in rows.items()}

  @property
  def weights(self) -> dict[str, Any]:
    """Returns the parameters of all metrics that have any, by name."""
    networks = {**self.of_images, **self.of_sets}
    return {name: x.params for name, x in networks.items() if x.params}

  def fitting(self, side: int) -> 'Metrics':
    """Returns the metrics of single images that can measure such a side."""
    sides = self.minimum_sides
    fit = {k: x for k, x in self.of_images.items() if sides[k] <= side}
    return Metrics(fit, {})


def load_metrics(
  names: Sequence[str] = (), weights: Mapping[str, str] | None = None
) -> Metrics:
  """Loads the named metrics, and those that are always measured.

  Args:
    names: keys of METRICS.
    weights: files of weights by the name of their metric. fid and cmmd require
      one; LPIPS has its own, which a file replaces.

  Raises:
    InputError: an unknown name, or weights that are missing or do not fit.
  """
  weights = weights or {}
  for name in names:
    if name not in METRICS:
      raise unknown('metrics', name, METRICS)
    if METRICS[name].load is None:
      raise InputError(
        f'{name} is measured of restorations that have it, without being asked '
        'for: leave it out'
      )
  for name in weights:
    if name not in names:
      raise InputError(
        f'metric_weights has a file for {name!r}, which is not measured: add '
        'it to metrics, or leave the file out'
      )
  rows = {k: x for k, x in METRICS.items() if x.always or k in names}
  loaded = {k: row.load(weights.get(k)) for k, row in rows.items()}
  return Metrics(
    {k: x for k, x in loaded.items() if rows[k].over == 'image'},
    {k: x for k, x in loaded.items() if rows[k].over == 'set'},
  )


ALWAYS = load_metrics()
