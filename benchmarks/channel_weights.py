"""Measures what an error of each channel of a latent does to the image.

  python benchmarks/channel_weights.py --model=photo-codec --step=0.225,0.7 \
    --json=weights.json folder/*.png

For each step: half a step, with a random sign at each site, is added to one
channel of the quantized latents; its weight is the squared error of the images
over that of the latents, both summed. Where the decoder is orthonormal, weights
are 1. Bits that are priced by the error of latents are priced by that of images
where all weights are alike.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from record import Record

import lasers_jax as lj
from lasers_jax.core.images import crop_center
from lasers_jax.data.sources import decode

SIDE = 256  # pixels, of the middle of each image


def weights(model: lj.TrainedModel, images: np.ndarray) -> np.ndarray:
  """Returns the weights of channels [D], on images [B, h, w, 3] in [0, 1]."""
  module, variables = model.module, model.variables
  step = module.bottleneck.step

  @jax.jit
  def quantized(images):
    return module.apply(variables, images).latent.quantized

  @jax.jit
  def decoded(latents):
    return module.apply(variables, latents, method='decode_latent')

  def weight(channel):
    moved = decoded(latents.at[..., channel].add(change))
    return jnp.sum((moved - still) ** 2) / jnp.sum(change**2)

  latents = quantized(images)
  signs = jax.random.rademacher(jax.random.key(0), latents.shape[:-1], float)
  still, change = decoded(latents), 0.5 * step * signs
  return np.array([weight(k) for k in range(latents.shape[-1])])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('images', nargs='+')
  parser.add_argument('--model', required=True)
  parser.add_argument('--step', default='0.225')
  parser.add_argument('--json', default='', help='file of the results')
  given = parser.parse_args()
  images = [crop_center(decode(path), SIDE, SIDE) for path in given.images]
  batch = np.stack(images).astype(np.float32) / 255
  record = Record(
    given.json, __doc__, model=given.model, images=len(images), side=SIDE
  )
  for step in map(float, given.step.split(',')):
    found = weights(lj.load(given.model).with_(step=step), batch)
    least, low, middle, high, most = np.percentile(
      found, [0, 10, 50, 90, 100]
    ).tolist()
    row = {'least': least, 'median': middle, 'most': most}
    row |= {'lowest tenth': low, 'highest tenth': high}
    print(step, {name: round(x, 3) for name, x in row.items()}, flush=True)
    record.add(f'step {step:g}', step=step, **row)
  record.finish()


if __name__ == '__main__':
  main()
