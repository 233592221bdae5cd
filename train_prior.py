"""Trains a prior over the codes or latents of a trained model, or resumes.

  python train_prior.py --config=prior:ar --model=runs/vq --workdir=runs/vq-ar

The run from top to bottom is lasers_jax/experiment/priors/loop.py.
--help lists the flags.
"""

from lasers_jax.core import signals

if __name__ == '__main__':
  signals.end_without_traceback()

from lasers_jax.cli.prior import run

if __name__ == '__main__':
  run()
