"""Compresses images to small files, and reads them back, by a trained model.

  python codec.py encode --model=runs/photos images/*.png files/

What is written is in lasers_jax/experiment/codec_files.py.
--help lists the flags.
"""

from lasers_jax.core import signals

if __name__ == '__main__':
  signals.end_without_traceback()

from lasers_jax.cli.codec import run

if __name__ == '__main__':
  run()
