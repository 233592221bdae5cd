"""Trains bottlenecks at equal bits, and sets their results side by side.

  python compare.py --config=configs/cifar10.py --workdir=runs/comparison

What is run is in lasers_jax/experiment/compare.py. --help lists the flags.
"""

from lasers_jax.core import signals

if __name__ == '__main__':
  signals.end_without_traceback()

from lasers_jax.cli.compare import run

if __name__ == '__main__':
  run()
