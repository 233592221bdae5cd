"""Makes the charts and the images of a report, as its page takes them."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lasers_jax.core.images import crop_center, to_uint8
from lasers_jax.evaluation.examples import Findings, Samples
from lasers_jax.evaluation.protocol import Measured
from lasers_jax.metrics import similarity
from lasers_jax.metrics.registry import known
from lasers_jax.report import charts, grids

LARGEST = 160  # pixels a side; of larger images the middle is shown
CELL = 112  # pixels; about how wide an image is shown
ATOM_CELL = 60
FEW = 8  # images; of fewer there is no histogram
DRAWN = 4  # samples shown of an image


class Cell(NamedTuple):
  """An image as the page has it."""

  label: str
  source: str  # a data URI
  width: int  # pixels on a screen
  note: str = ''


class Chart(NamedTuple):
  """A chart as the page has it."""

  title: str
  source: str  # a data URI
  note: str = ''


def training(
  history: list[dict[str, Any]], terms: list[str], step: int
) -> list[Chart]:
  """Draws the logged metrics: the most important first, then all others.

  Args:
    history: the lines of metrics.jsonl.
    terms: of the loss, their names.
    step: of the checkpoint; it is marked where training went further.
  """
  batch = 'Training: of a batch, before rounding; in a model that samples, by '
  batch += 'the first estimate. Validation: as in the results.'
  use = 'Training: of a batch. Validation: of the whole split.'
  plan = [
    ('Loss', {'loss': 'loss'}, 'The weighted sum of its terms.', True),
    ('Terms of the loss', {x: x for x in terms}, 'Without weights.', True),
    ('PSNR in dB', _both('psnr'), batch, False),
    ('SSIM', {'validation': 'validation/ssim'}, 'On validation images.', False),
    ('Usage, fraction of codes', _both('usage'), use, False),
    ('Perplexity of codes', _both('perplexity'), use, False),
    (
      'Logits of the discriminator',
      {'of images': 'real_logit', 'of reconstructions': 'fake_logit'},
      '', False,
    ),
  ]  # fmt: skip
  shown = {'step', 'validation/bits_per_pixel'}
  shown |= {key for _, keys, _, _ in plan for key in keys.values()}
  logged = {key: None for line in history for key in line}
  plan += [(_words(x), {x: x}, '', False) for x in logged if x not in shown]
  drawn = []
  for name, keys, note, log in plan:
    lines = {label: _curve(history, key) for label, key in keys.items()}
    lines = {label: curve for label, curve in lines.items() if curve}
    if any(len(steps) > 1 for steps, _ in lines.values()):
      mark = step if step < history[-1]['step'] else None
      text = charts.curves(lines, name, log, mark)
      drawn.append(Chart(name, _svg(text), note))
  return drawn


def _both(key: str) -> dict[str, str]:
  return {'training': key, 'validation': f'validation/{key}'}


def _curve(history, key: str) -> tuple:
  points = [(x['step'], x[key]) for x in history if x.get(key) is not None]
  return tuple(zip(*points, strict=True))


def _words(key: str) -> str:
  words = key.replace('_', ' ').replace('/', ', ')
  return words[:1].upper() + words[1:]


def distributions(measured: Measured, findings: Findings) -> list[Chart]:
  """Draws the distribution of each metric over images; marks the examples."""
  drawn = []
  for name, metric in known(measured.values).items():
    values = measured.values[name]
    if len(values) >= FEW:
      groups = findings.ranked.get(name, {})
      marks = {group: values[numbers] for group, numbers in groups.items()}
      text = charts.histogram(values, metric.heading, marks)
      drawn.append(Chart(metric.title, _svg(text)))
  return drawn


def rankings(measured: Measured, findings: Findings) -> list[dict[str, Any]]:
  """Returns the best, median and worst images by each metric that ranks."""
  return [
    {
      'by': metric.title,
      'groups': {
        group: [_example(i, measured, findings) for i in numbers]
        for group, numbers in findings.ranked[name].items()
        if numbers
      },
    }
    for name, metric in known(findings.ranked).items()
  ]


def _example(i: int, measured, findings) -> dict[str, Any]:
  original, reconstruction = findings.pairs[i]
  values = [
    f'{metric.title} {metric.quantity(measured.values[name][i])}'
    for name, metric in known(measured.values).items()
  ]
  error = grids.error_image(original, reconstruction, gain=5)
  return {
    'name': f'Image {i:,}',
    'quality': ', '.join(values),
    'images': [
      _cell('original', original),
      _cell('reconstruction', reconstruction),
      _cell('error × 5', error),
    ],
  }


def is_cropped(findings: Findings) -> bool:
  """Returns whether some examples are larger than the part that is shown."""
  shapes = [original.shape for original, _ in findings.pairs.values()]
  return any(max(h, w) > LARGEST for h, w, _ in shapes)


def use_of_codes(counts: np.ndarray) -> list[Chart]:
  """Draws how often codes are used, of counts [K]; none if continuous."""
  if not counts.any():
    return []
  never = f'{np.sum(counts == 0):,} of {len(counts):,} are never used. '
  alike = 'Dashed: if all were used alike.'
  by_rank, often = charts.usage(counts), charts.times_used(counts)
  return [
    Chart('Use of the codes by rank', _svg(by_rank), never + alike),
    Chart('How often codes are used', _svg(often), alike),
  ]


def coefficients(findings: Findings) -> list[Chart]:
  """Draws the coefficients of each step of a pursuit, where there is one."""
  values = findings.coefficients
  if values is None:
    return []
  note = (
    f'As they are decoded, of {findings.pursued:,} images ({len(values):,} '
    'sites). Each row is scaled to its highest bar; what lies beyond is in the '
    'outermost ones.'
  )
  text = charts.coefficients(values)
  return [Chart('Coefficients by step of the pursuit', _svg(text), note)]


def atoms(counts: np.ndarray, findings: Findings) -> list[Cell]:
  """Returns decoded atoms, the most used first, with the fraction of use."""
  shown = to_uint8(findings.atoms)
  if findings.numbers is None:
    return [_cell(f'{i}', x, ATOM_CELL) for i, x in enumerate(shown)]
  fractions = counts / max(1, counts.sum())
  return [
    _cell(f'{i}', x, ATOM_CELL, f'{fractions[i]:.2%}')
    for i, x in zip(findings.numbers, shown, strict=True)
  ]


def samples(found: Samples) -> dict[str, Any]:
  """Returns samples of the same images, their mean and their deviation."""
  exact = found.draws / 255
  spread = exact.std(axis=0).mean(axis=-1)  # [n, h, w]
  mean = np.round(255 * exact.mean(axis=0)).astype(np.uint8)
  top = float(np.percentile(spread, 99.5))
  rows = []
  for i, original in enumerate(found.originals):
    decoded = {'first estimate': found.initial[i]}
    for j, draw in enumerate(found.draws[:DRAWN]):
      decoded[f'sample {j + 1}'] = draw[i]
    decoded[f'mean of {len(exact)}'] = mean[i]
    heat = charts.heat(spread[i], top)
    cells = [
      _cell('original', original),
      *(
        _cell(label, image, note=f'{_psnr(original, image):.2f} dB')
        for label, image in decoded.items()
      ),
      _cell('deviation', heat, note=f'mean {spread[i].mean():.3f}'),
    ]
    rows.append({'name': f'Image {found.numbers[i]:,}', 'images': cells})
  ramp = charts.heat(np.linspace(0, 1, 128)[None], 1.0)
  return {
    'rows': rows,
    'count': len(exact),
    'size': _size(found),
    'top': f'{top:.3f}',
    'ramp': picture(ramp),
  }


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
  return float(similarity.psnr(a[None], b[None])[0])


def sweep(findings: Findings) -> dict[str, Any]:
  """Draws quality and time by the number of sampling steps; adds a table."""
  found, drawn = findings.sweep, []
  metrics = known(found.values)
  for name, metric in metrics.items():
    text = charts.over_steps(
      found.steps,
      found.values[name],
      metric.heading,
      level=found.initial[name],
    )
    drawn.append(Chart(metric.title, _svg(text)))
  text = charts.over_steps(
    found.steps, found.milliseconds, 'ms an image', log=True
  )
  drawn.append(Chart('Time', _svg(text)))
  first = [x.number(found.initial[name]) for name, x in metrics.items()]
  table = [('first estimate', *first, '')]
  for i, steps in enumerate(found.steps):
    values = [x.number(found.values[name][i]) for name, x in metrics.items()]
    table.append((str(steps), *values, f'{found.milliseconds[i]:.3g}'))
  return {
    'charts': drawn,
    'names': [metric.heading for metric in metrics.values()],
    'table': table,
    'count': len(findings.samples.numbers),
    'size': _size(findings.samples),
    'device': found.device,
  }


def _size(found: Samples) -> str:
  _, height, width, _ = found.originals.shape
  return f'{height}×{width}'


def _cell(
  label: str, image: np.ndarray, cell: int = CELL, note: str = ''
) -> Cell:
  """Makes a cell of an image uint8 [h, w, 3], enlarged by a whole factor."""
  image = crop_center(image, LARGEST, LARGEST)
  width = image.shape[1]
  factor = max(1, round(cell / width))
  return Cell(label, picture(image), factor * width, note)


def picture(image: np.ndarray) -> str:
  """Returns an image uint8 [h, w, 3] as a data URI."""
  return _uri('png', _png(image))


def _png(image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format='PNG', optimize=True)
  return buffer.getvalue()


def _svg(text: str) -> str:
  return _uri('svg+xml', text.encode())


def _uri(kind: str, data: bytes) -> str:
  return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
