"""The console command: lasers-jax PROGRAM [FLAGS]."""

import importlib
import sys

from lasers_jax.core import signals
from lasers_jax.errors import unknown

PROGRAMS = {
  'train': 'trains an autoencoder, or resumes a run',
  'prior': 'trains a prior of new images over the codes of a trained model',
  'evaluate': 'measures a trained model over a whole split',
  'compare': 'trains bottlenecks at equal bits, and compares them',
  'sample': 'draws new images by vector priors, and scores them',
  'export': 'writes a model into a folder that needs nothing else',
  'codec': 'compresses images to small files, and reads them back',
  'explore': 'shows the code of an image, site by site, on a page',
  'latents': 'writes latents or codes into shards, for others to train on',
  'pack': 'packs images into shards that training reads at random',
}


def main() -> None:
  """Runs the program that the first word names; without one, lists them."""
  signals.end_without_traceback()
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('--help', '-h', 'help'):
    print(_usage())
    return
  if name not in PROGRAMS:
    print(f'error: {unknown("the program", name, PROGRAMS)}', file=sys.stderr)
    sys.exit(2)
  sys.argv = [f'{sys.argv[0]} {name}', *sys.argv[2:]]
  importlib.import_module(f'lasers_jax.cli.{name}').run()


def _usage() -> str:
  width = max(map(len, PROGRAMS))
  lines = [f'  {name:{width}}  {text}' for name, text in PROGRAMS.items()]
  return '\n'.join(
    [
      'lasers-jax PROGRAM [FLAGS]',
      '',
      *lines,
      '',
      'lasers-jax PROGRAM --help lists the flags of a program.',
    ]
  )
