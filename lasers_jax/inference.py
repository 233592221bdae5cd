"""Encodes, decodes and reconstructs images by a trained model.

Images are uint8, or float in [0, 1], [h, w, 3] of any size. They are padded
inside, and the padding is removed from the results. The model is an
`Autoencoder`; the variables are its parameters and statistics. Of a
restoration, images are also float32 [h, w, channels], as its encoder sees
degraded ones.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax.core.images import to_float, to_uint8, to_uint8_range
from lasers_jax.core.padding import common_sides, pad, padded_side, sizes_of
from lasers_jax.core.sharding import put_batch, replicated
from lasers_jax.decoders import Draw, SamplingSettings
from lasers_jax.networks.autoencoder import Autoencoder

BATCH = 500  # rows at once, at most
PIXELS = 2**20  # of all images at once, at most, where there are several
MOST_ATOMS = 64  # of `decode_atoms`


@functools.partial(jax.jit, static_argnums=0)
def encode_batch(
  model: Autoencoder,
  variables: Any,
  images: Array,
  sizes: Array | None = None,
) -> Any:
  """Encodes images uint8 [B, h, w, 3] that are padded already.

  Args:
    sizes: int32 [B, 2], height and width of each image, which lies at the top
      left; the rest is padding. None: there is none.

  Returns:
    The codes: a pytree of arrays [B, ...].
  """
  return model.apply(variables, to_float(images), sizes, method='encode')


def encode(
  model: Autoencoder, variables: Any, images: np.ndarray, mesh: Mesh
) -> tuple[Any, np.ndarray]:
  """Encodes images [B, h, w, 3] of one size, as evaluation does.

  Returns:
    The codes, exactly as they would be stored, a pytree of NumPy arrays
    [B, ...]; and the latents that the decoder receives, float32 [B, H, W, D].
  """
  chex.assert_rank(images, 4)
  height, width = model.sites(*images.shape[1:3])
  coded = model.coded_sites(*images.shape[1:3])
  codes, latents = [], []
  for rows, batch in padded_batches(images, model.pad_multiple, mesh):
    found, quantized = jax.device_get(
      _encode(model, mesh, variables, put_batch(batch, mesh))
    )
    latents.append(quantized[: len(rows), :height, :width])
    for i in range(len(rows)):
      one = jax.tree.map(lambda x, i=i: x[i], found)
      codes.append(model.bottleneck.crop(one, *coded))
  codes = jax.tree.map(lambda *x: np.stack(x), *codes)
  return codes, np.concatenate(latents).astype(np.float32)


def encode_z(
  model: Autoencoder, variables: Any, images: np.ndarray, mesh: Mesh
) -> np.ndarray:
  """Encodes images [n, h, w, 3] of one size, up to the bottleneck.

  Returns:
    The encoder's outputs, float32 [n, H, W, D].
  """
  chex.assert_shape(images, (None, None, None, 3))
  height, width = model.sites(*images.shape[1:3])
  found = []
  for rows, batch in padded_batches(images, model.pad_multiple, mesh):
    z = _encode_z(model, mesh, variables, put_batch(batch, mesh))
    found.append(np.asarray(z)[: len(rows), :height, :width])
  return np.concatenate(found).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode_z(model, mesh, variables, batch) -> Array:
  images = to_float(batch['image'])
  z = model.apply(variables, images, sizes=batch.get('sizes')).z
  return jax.lax.with_sharding_constraint(z, replicated(mesh))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(model, mesh, variables, batch) -> tuple[Any, Array]:
  images = to_float(batch['image'])
  latent = model.apply(variables, images, sizes=batch.get('sizes')).latent
  found = latent.codes, latent.quantized
  return jax.lax.with_sharding_constraint(found, replicated(mesh))


@functools.partial(jax.jit, static_argnums=0)
def look_up(model: Autoencoder, variables: Any, codes: Any) -> Array:
  """Returns the latents of codes [B, ...]: float32 [B, H, W, D]."""
  return cast(Array, model.apply(variables, codes, method='look_up'))


@functools.partial(jax.jit, static_argnums=0)
def snap(model: Autoencoder, variables: Any, z: Array) -> Array:
  """Returns what the bottleneck makes of encoder outputs: [B, H, W, D]."""
  return cast(Array, model.apply(variables, z, method='quantize'))


def reconstruct(
  model: Autoencoder,
  variables: Any,
  images: Sequence[np.ndarray] | np.ndarray,
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
  indices: Sequence[int] | None = None,
  number: int = 0,
) -> list[np.ndarray]:
  """Encodes and decodes images [h, w, 3], which may differ in size.

  Args:
    indices: the numbers of the images in their split, which seed a decoder that
      samples; None takes 0, 1, ...
    number: of the sample, of several of an image.

  Returns:
    uint8 [h, w, 3] each.
  """
  numbers = np.arange(len(images)) if indices is None else np.array(indices)
  found: dict[int, np.ndarray] = {}
  for rows, batch in padded_batches(images, model.pad_multiple, mesh):
    chosen = np.pad(rows, (0, len(batch['image']) - len(rows)), mode='edge')
    batch['index'] = numbers[chosen].astype(np.int32)
    made = _reconstruct(
      model, mesh, decoding, variables, put_batch(batch, mesh), number
    )
    for i, image in zip(rows, to_uint8(made), strict=False):
      h, w, _ = images[i].shape
      found[i] = image[:h, :w]
  return [found[i] for i in range(len(images))]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _reconstruct(model, mesh, decoding, variables, batch, number) -> Array:
  images = to_float(batch['image'])
  output = model.apply(variables, images, sizes=batch.get('sizes'))
  draw = Draw(batch['index'], number, batch.get('sizes'))
  quantized = output.latent.quantized
  images = model.apply(
    variables, quantized, draw, decoding, images, method='sample'
  )
  rounded = to_uint8_range(images)
  return jax.lax.with_sharding_constraint(rounded, replicated(mesh))


def padded_batches(
  images: Sequence[np.ndarray] | np.ndarray, pad_multiple: int, mesh: Mesh
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
  """Yields images [h, w, 3] in batches of a few sizes.

  Yields:
    The numbers of the images in a batch, int [n], and the batch: `image`
    [B, ...], where B >= n is a multiple of the devices, and `sizes` where an
    image is smaller than the batch.
  """
  if not len(images):
    return
  sides = common_sides(images, pad_multiple)
  for side in np.unique(sides, axis=0):
    (group,) = np.nonzero((sides == side).all(axis=1))
    pixels = int(side.prod())
    for _, rows, count in batches_of(group, mesh, pixels):
      batch = {'image': np.stack([pad(images[i], 1, side) for i in rows])}
      height, width = np.array([images[i].shape[:2] for i in rows]).T
      sizes = sizes_of(batch['image'], height, width)
      yield rows[:count], batch if sizes is None else {**batch, 'sizes': sizes}


def decode_latents(
  model: Autoencoder,
  variables: Any,
  latents: np.ndarray,
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
  size: tuple[int, int] | None = None,
) -> np.ndarray:
  """Decodes latents [n, H, W, D] to images uint8 [n, h, w, 3].

  Args:
    size: height and width of the images. Latents are then padded, so that few
      sizes are compiled. None: the latents give the size.
  """
  return _decode_rows(_decode, model, variables, latents, mesh, decoding, size)


def decode_z(
  model: Autoencoder,
  variables: Any,
  z: np.ndarray,
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
  size: tuple[int, int] | None = None,
) -> np.ndarray:
  """Decodes encoder outputs [n, H, W, D], as the bottleneck quantizes them.

  `decode_z` of `encode_z` is what `reconstruct` returns.

  Args:
    size: as in `decode_latents`.

  Returns:
    Images uint8 [n, h, w, 3].
  """
  return _decode_rows(_decode_z, model, variables, z, mesh, decoding, size)


def _decode_rows(
  decode: Callable[..., Array],
  model: Autoencoder,
  variables: Any,
  latents: np.ndarray,
  mesh: Mesh,
  decoding: SamplingSettings | None,
  size: tuple[int, int] | None,
) -> np.ndarray:
  """Decodes latents batch by batch, by a function such as `_decode`."""
  chex.assert_shape(latents, (None, None, None, model.encoder.D))
  images = []
  if size is not None:
    sides = [
      padded_side(x, model.pad_multiple) // model.encoder.f for x in size
    ]
    more = [(0, n - x) for n, x in zip(sides, latents.shape[1:3], strict=True)]
    latents = np.pad(latents, ((0, 0), *more, (0, 0)))
  pixels = latents.shape[1] * latents.shape[2] * model.encoder.f**2
  for start, rows, count in batches_of(latents, mesh, pixels):
    indices = np.arange(start, start + len(rows), dtype=np.int32)
    batch = {'latent': rows, 'index': indices}
    if size is not None:
      batch['sizes'] = np.tile(np.array(size, np.int32), (len(rows), 1))
    decoded = decode(model, mesh, decoding, variables, put_batch(batch, mesh))
    images.append(to_uint8(decoded)[:count])
  images = np.concatenate(images)
  return images if size is None else images[:, : size[0], : size[1]]


def batches_of(
  rows: np.ndarray, mesh: Mesh, pixels: int = 1
) -> Iterator[tuple[int, np.ndarray, int]]:
  """Yields batches of rows, all of one size: the last row is repeated.

  Args:
    pixels: of the image of a row; large images make smaller batches.

  Yields:
    The number of the first row, the rows, and how many of them are real.
  """
  most = min(len(rows), BATCH, max(1, PIXELS // pixels))
  size = -(-most // mesh.size) * mesh.size
  for start in range(0, len(rows), size):
    some = rows[start : start + size]
    missing = [(0, size - len(some)), *[(0, 0)] * (rows.ndim - 1)]
    yield start, np.pad(some, missing, mode='edge'), len(some)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decode(model, mesh, decoding, variables, batch) -> Array:
  draw = Draw(batch['index'], sizes=batch.get('sizes'))
  images = model.apply(
    variables, batch['latent'], draw, decoding, method='sample'
  )
  rounded = to_uint8_range(images)
  return jax.lax.with_sharding_constraint(rounded, replicated(mesh))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decode_z(model, mesh, decoding, variables, batch) -> Array:
  quantized = model.apply(
    variables, batch['latent'], batch.get('sizes'), method='quantize'
  )
  batch = {**batch, 'latent': quantized}
  return _decode(model, mesh, decoding, variables, batch)


@functools.partial(jax.jit, static_argnums=(0, 1))
def decode_atoms(
  model: Autoencoder, mesh: Mesh, variables: Any, order: Array | None = None
) -> Array:
  """Decodes single atoms, to show them: [k, h, w, 3] in [0, 1].

  Each atom is decoded alone, in the middle of a latent of zeros. The image of
  zeros is subtracted, and the contrast is stretched to the full range around
  grey.

  Args:
    order: int [any], numbers of atoms, of which the first 64 are shown; None
      takes the first atoms.
  """
  bound = model.bind(variables)
  atoms = bound.bottleneck.atoms()
  if order is not None:
    atoms = atoms[order]
  atoms = atoms[:MOST_ATOMS]
  n, _, _, d = atoms.shape
  # Five a side: an odd number has a middle.
  empty = jnp.zeros((n, 5, 5, d))
  latents = bound.unpack(empty.at[:, 2:3, 2:3].set(atoms))
  none = bound.unpack(empty[:1])
  # Where the decoder sees an image, too, it is a hole here.
  _, h, w, _ = (model.encoder.f * x for x in latents.shape)
  hole = jnp.full((n, h, w, model.channels), 0.5).at[..., 3:].set(1.0)
  shown = bound.decode_latent(latents, inputs=hole)
  shown -= bound.decode_latent(none, inputs=hole[:1])
  peak = jnp.max(jnp.abs(shown), axis=(1, 2, 3), keepdims=True)
  shown = 0.5 + 0.5 * shown / jnp.maximum(peak, 1e-6)
  return jax.lax.with_sharding_constraint(shown, replicated(mesh))


def weights_hash(variables: Any) -> str:
  """Returns a hash of the arrays of weights: 16 hexadecimal digits."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
  return digest.hexdigest()[:16]


def count_parameters(variables: Any) -> dict[str, int]:
  """Counts the parameters of each part of a model: encoder, decoder, ...

  A codebook of running averages is no parameter: no gradient trains it.
  """
  return {
    name: sum(leaf.size for leaf in jax.tree.leaves(part))
    for name, part in variables['params'].items()
  }
