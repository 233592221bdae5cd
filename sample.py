"""Draws new images from trained autoencoders, and scores them.

  python sample.py --workdir=runs/mnist/vae --priors=pmfs,gmm,kde

What is drawn is in lasers_jax/experiment/generate.py. --help lists the flags.
"""

from lasers_jax.core import signals

if __name__ == '__main__':
  signals.end_without_traceback()

from lasers_jax.cli.sample import run

if __name__ == '__main__':
  run()
