"""Prefixes of codes that the decoder sees in training."""

import jax
import jax.numpy as jnp
from jax import Array


def draw_prefixes(
  key: Array, images: tuple[int, ...], most: int, dropout: float
) -> Array:
  """Draws how many parts of its code each image keeps, the first ones.

  Args:
    key: of the draw.
    images: the dimensions of the batch.
    most: parts of a whole code.
    dropout: fraction of the images that keep 1 to `most`, with equal odds; the
      others keep all.

  Returns:
    int32 of the dimensions `images`.
  """
  which, many = jax.random.split(key)
  drops = jax.random.bernoulli(which, dropout, images)
  drawn = jax.random.randint(many, images, 1, most + 1)
  return jnp.where(drops, drawn, most)
