"""Measures restorations without a model on images.

  python benchmarks/restorations.py folder:~/kodak --output=restorations.json

The images are degraded as in every evaluation of a model; they are whole, or
cropped to their middles (--side). Telea's and the Navier-Stokes method need
OpenCV (pip install opencv-python-headless). Time: ten minutes for the Kodak
images at 256 pixels on one core, nearly all of it in the biharmonic method.
"""

import argparse
import os

from lasers_jax.core import provenance
from lasers_jax.core.sharding import make_mesh
from lasers_jax.core.storage import as_json, write_text
from lasers_jax.data import DataSettings
from lasers_jax.degradations import DEGRADATIONS
from lasers_jax.evaluation import protocol
from lasers_jax.evaluation.baselines import measure_baselines
from lasers_jax.metrics.registry import ALWAYS, known

SECTIONS = (
  {'name': 'superres', 'scale': 2},
  {'name': 'superres', 'scale': 4},
  *({'name': 'inpaint', 'mask': x} for x in ('centre', 'box', 'strokes')),
  {'name': 'inpaint', 'mask': 'pixels', 'share': 0.5},
  *({'name': 'denoise', 'sigma': (x,)} for x in (15.0, 25.0, 50.0)),
  *({'name': 'deblock', 'quality': (x,)} for x in (10, 20, 40)),
  {'name': 'colorize'},
)


def measure(section: dict, data: DataSettings) -> list[dict]:
  """Returns a row for each method."""
  fields = {k: x for k, x in section.items() if k != 'name'}
  degradation = DEGRADATIONS[section['name']](**fields)
  batches = data.evaluation_batches(data.open(data.test), 8, 1)
  found = measure_baselines(degradation, batches, make_mesh(data=1), ALWAYS)
  return [
    {'degradation': section, 'method': name, **values}
    for name, values in found.items()
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('data', help='as data.name of a config')
  parser.add_argument('--split', default='all')
  parser.add_argument(
    '--side', type=int, help='of crops; whole images if unset'
  )
  parser.add_argument('--only', help='the name of one degradation')
  parser.add_argument('--output', default='restorations.json')
  given = parser.parse_args()
  whole = given.side is None
  data = DataSettings(
    name=os.path.expanduser(given.data),
    side=given.side or 8,
    whole=whole,
    test=given.split,
  )
  rows = []
  for section in SECTIONS:
    if given.only in (None, section['name']):
      rows += measure(section, data)
      print(*(f'{row["method"]}' for row in rows[-5:]), section, flush=True)
  metrics = known({name for row in rows for name in row})
  found = {
    'rows': rows,
    'protocol': {
      **protocol.PROTOCOL,
      **{name: metric.protocol for name, metric in metrics.items()},
      **data.describe(data.test),
      'commit': provenance.commit(),
    },
  }
  write_text(given.output, as_json(found))


if __name__ == '__main__':
  main()
