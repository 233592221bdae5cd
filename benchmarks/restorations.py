"""Measures restorations without a model on images.

  python benchmarks/restorations.py folder:~/kodak --json=restorations.json

The images are degraded as in every evaluation of a model; they are whole, or
cropped to their middles (--side). Telea's and the Navier-Stokes method need
OpenCV (pip install opencv-python-headless). Time: ten minutes for the Kodak
images at 256 pixels on one core, nearly all of it in the biharmonic method.
"""

import argparse
import os

from record import Record

from lasers_jax.core.sharding import make_mesh
from lasers_jax.data import DataSettings
from lasers_jax.degradations import DEGRADATIONS
from lasers_jax.evaluation import protocol
from lasers_jax.evaluation.baselines import measure_baselines
from lasers_jax.experiment.small_images import senders
from lasers_jax.metrics.registry import ALWAYS, known

SECTIONS = {
  'superres 2': {'name': 'superres', 'scale': 2},
  'superres 4': {'name': 'superres', 'scale': 4},
  **{
    f'inpaint {x}': {'name': 'inpaint', 'mask': x}
    for x in ('centre', 'box', 'strokes')
  },
  'inpaint pixels': {'name': 'inpaint', 'mask': 'pixels', 'share': 0.5},
  **{
    f'denoise {x}': {'name': 'denoise', 'sigma': (float(x),)}
    for x in (15, 25, 50)
  },
  **{
    f'deblock {x}': {'name': 'deblock', 'quality': (x,)} for x in (10, 20, 40)
  },
  'colorize': {'name': 'colorize'},
}


def measure(
  section: dict, data: DataSettings, bits_per_pixel: float | None = None
) -> dict[str, dict]:
  """Returns the metrics of each method, with their protocol.

  Args:
    bits_per_pixel: at most, where the small image is sent as a file.
  """
  fields = {k: x for k, x in section.items() if k != 'name'}
  degradation = DEGRADATIONS[section['name']](**fields)
  batches = data.evaluation_batches(data.open(data.test), 8, 1)
  sent = senders(degradation, data, bits_per_pixel)
  mesh = make_mesh(data=1)
  found = measure_baselines(degradation, batches, mesh, ALWAYS, sent)
  rows = known({**ALWAYS.of_images, **degradation.measures()})
  words = {name: row.protocol for name, row in rows.items()}
  return {name: {**x, 'protocol': words} for name, x in found.items()}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('data', help='as data.name of a config')
  parser.add_argument('--split', default='all')
  parser.add_argument(
    '--side', type=int, help='of crops; whole images if unset'
  )
  parser.add_argument('--only', help='the first letters of some degradations')
  parser.add_argument('--json', default='', help='file of the results')
  given = parser.parse_args()
  data = DataSettings(
    name=os.path.expanduser(given.data),
    side=given.side or 8,
    whole=given.side is None,
    test=given.split,
  )
  described = {**protocol.PROTOCOL, **data.describe(data.test)}
  record = Record(given.json, __doc__, **described)
  for name, section in SECTIONS.items():
    if name.startswith(given.only or '') and f'{name} input' not in record:
      for method, values in reversed(measure(section, data).items()):
        record.add(
          f'{name} {method}', degradation=section, method=method, **values
        )
        psnr = values.get('psnr', {}).get('mean')
        print(f'{name}, {method}: PSNR {psnr and round(psnr, 2)} dB')
  record.finish()


if __name__ == '__main__':
  main()
