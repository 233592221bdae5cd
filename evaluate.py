"""Measures a trained model over a whole split.

  python evaluate.py --workdir=runs/photos

What is measured is in lasers_jax/experiment/evaluate.py.
--help lists the flags.
"""

from lasers_jax.core import signals

if __name__ == '__main__':
  signals.end_without_traceback()

from lasers_jax.cli.evaluate import run

if __name__ == '__main__':
  run()
