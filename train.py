"""Trains an autoencoder, or resumes a run.

  python train.py --config=configs/photos.py:lasers --workdir=runs/photos

The run from top to bottom is lasers_jax/experiment/loop.py.
--help lists the flags.
"""

from lasers_jax.core import signals

if __name__ == '__main__':
  signals.end_without_traceback()

from lasers_jax.cli.train import run

if __name__ == '__main__':
  run()
