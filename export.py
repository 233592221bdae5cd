"""Writes a trained model into a folder that needs no checkpoint and no data.

  python export.py --workdir=runs/photos --output=photos-model

What is written is in lasers_jax/experiment/exported.py.
--help lists the flags.
"""

from lasers_jax.core import signals

if __name__ == '__main__':
  signals.end_without_traceback()

from lasers_jax.cli.export import run

if __name__ == '__main__':
  run()
