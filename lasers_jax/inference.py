"""What a trained model makes of images: functions of a module and variables.

Images are uint8 [h, w, 3] of any size from the factor f up; arrays are padded
inside, and what is padding is taken off again.
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax.core.images import to_float, to_uint8, to_uint8_range
from lasers_jax.core.padding import common_sides, pad_one, padded_side
from lasers_jax.core.sharding import put_batch, replicated
from lasers_jax.decoders import Draw, SamplingSettings
from lasers_jax.networks.autoencoder import Autoencoder

BATCH = 500  # latents decoded at once
MOST_ATOMS = 64  # of `decode_atoms`


@functools.partial(jax.jit, static_argnums=0)
def encode_batch(
  model: Autoencoder,
  variables: Any,
  images: Array,
  sizes: Array | None = None,
) -> Any:
  """Codes images uint8 [B, h, w, 3] that are padded already.

  Args:
    sizes: int32 [B, 2], of the images at the top left; None: all.

  Returns:
    The codes: a pytree of arrays [B, ...].
  """
  return model.apply(variables, to_float(images), sizes, method='encode')


@functools.partial(jax.jit, static_argnums=0)
def look_up(model: Autoencoder, variables: Any, codes: Any) -> Array:
  """Returns what codes stand for: float32 [B, H, W, D]."""

  def decode(module, codes):
    return module.bottleneck.decode(codes)

  return model.apply(variables, codes, method=decode)


def reconstruct(
  model: Autoencoder,
  variables: Any,
  images: list[np.ndarray],
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
  indices: Sequence[int] | None = None,
) -> list[np.ndarray]:
  """Codes and decodes images uint8 [h, w, 3], of any size from the factor up.

  Args:
    indices: their numbers in the split; None takes 0, 1, ...

  Returns:
    uint8 [h, w, 3] each.
  """
  copies = []
  indices = range(len(images)) if indices is None else indices
  sides = common_sides(images, model.pad_multiple) if images else ()
  for i, image, goal in zip(indices, images, sides, strict=True):
    padded, sizes = pad_one(image, model.pad_multiple, goal)
    copy = _reconstruct(
      model, mesh, decoding, variables, padded, sizes, np.full(1, i, np.int32)
    )
    h, w, _ = image.shape
    copies.append(to_uint8(copy)[0, :h, :w])
  return copies


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _reconstruct(
  model, mesh, decoding, variables, images, sizes, indices
) -> Array:
  output = model.apply(variables, to_float(images), sizes=sizes)
  draw, quantized = Draw(indices, sizes=sizes), output.latent.quantized
  copies = model.apply(variables, quantized, draw, decoding, method='sample')
  rounded = to_uint8_range(copies)
  return jax.lax.with_sharding_constraint(rounded, replicated(mesh))


def decode_latents(
  model: Autoencoder,
  variables: Any,
  latents: np.ndarray,
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
  size: tuple[int, int] | None = None,
) -> np.ndarray:
  """Decodes latents [n, H, W, D]: uint8 [n, h, w, 3].

  Args:
    size: height and width of the images, which may have any. Latents are then
      padded, so that few sizes are compiled. None: as latents give them.
  """
  images = []
  if size is not None:
    sides = [
      padded_side(x, model.pad_multiple) // model.encoder.f for x in size
    ]
    more = [(0, n - x) for n, x in zip(sides, latents.shape[1:3], strict=True)]
    latents = np.pad(latents, ((0, 0), *more, (0, 0)))
  for start, rows, count in batches_of(latents, mesh):
    indices = np.arange(start, start + len(rows), dtype=np.int32)
    batch = {'latent': rows, 'index': indices}
    if size is not None:
      batch['sizes'] = np.tile(np.array(size, np.int32), (len(rows), 1))
    copies = _decode(model, mesh, decoding, variables, put_batch(batch, mesh))
    images.append(to_uint8(copies)[:count])
  images = np.concatenate(images)
  return images if size is None else images[:, : size[0], : size[1]]


def batches_of(
  rows: np.ndarray, mesh: Mesh
) -> Iterator[tuple[int, np.ndarray, int]]:
  """Yields (start, rows, how many are real): of one size, zeros at the end."""
  size = -(-min(len(rows), BATCH) // mesh.size) * mesh.size
  for start in range(0, len(rows), size):
    some = rows[start : start + size]
    missing = [(0, size - len(some)), *[(0, 0)] * (rows.ndim - 1)]
    yield start, np.pad(some, missing), len(some)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decode(model, mesh, decoding, variables, batch) -> Array:
  draw = Draw(batch['index'], sizes=batch.get('sizes'))
  images = model.apply(
    variables, batch['latent'], draw, decoding, method='sample'
  )
  rounded = to_uint8_range(images)
  return jax.lax.with_sharding_constraint(rounded, replicated(mesh))


@functools.partial(jax.jit, static_argnums=(0, 1))
def decode_atoms(
  model: Autoencoder, mesh: Mesh, variables: Any, order: Array | None = None
) -> Array:
  """Shows what single atoms add to an image: [k, h, w, 3] in [0, 1].

  Each stands alone in the middle of a latent of zeros, is decoded, and has
  what zeros decode to taken off; the contrast of each is stretched to the full
  range around grey.

  Args:
    order: int [any], which atoms, at most 64 of them; None takes the first.
  """
  bound = model.bind(variables)
  atoms = bound.bottleneck.atoms()
  if order is not None:
    atoms = atoms[order]
  atoms = atoms[:MOST_ATOMS]
  n, p, _, d = atoms.shape
  # Five patches a side: an odd number has a middle.
  empty = jnp.zeros((n, 5 * p, 5 * p, d))
  latents = empty.at[:, 2 * p : 3 * p, 2 * p : 3 * p].set(atoms)
  shown = bound.decode_latent(latents) - bound.decode_latent(empty[:1])
  peak = jnp.max(jnp.abs(shown), axis=(1, 2, 3), keepdims=True)
  shown = 0.5 + 0.5 * shown / jnp.maximum(peak, 1e-6)
  return jax.lax.with_sharding_constraint(shown, replicated(mesh))


def weights_hash(variables: Any) -> str:
  """Names weights by the SHA-256 of their arrays: 16 hexadecimal digits."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
  return digest.hexdigest()[:16]


def count_parameters(variables: Any) -> dict[str, int]:
  """Counts what gradients train in each part of a model: encoder, decoder, ...

  A codebook of running averages is not among it.
  """
  return {
    name: sum(leaf.size for leaf in jax.tree.leaves(part))
    for name, part in variables['params'].items()
  }
