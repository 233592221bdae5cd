"""Draws new images from a trained model, and scores them."""

import functools
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax.bottlenecks.continuous import KL
from lasers_jax.core.images import to_float
from lasers_jax.core.sharding import put_batch, replicated
from lasers_jax.errors import InputError
from lasers_jax.inference import batches_of
from lasers_jax.metrics import memorization, wasserstein
from lasers_jax.metrics.base import Extractor, extract
from lasers_jax.metrics.manifold import manifold_scores
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.priors import vector

COMPARED = 2_000  # images whose nearest neighbours are found by pixels


class ImageSet(NamedTuple):
  """A set of images, real or drawn."""

  latents: np.ndarray  # float32 [n, d], d = H·W·D
  images: np.ndarray  # uint8 [n, h, w, 3]
  features: np.ndarray  # float32 [n, width], of the images


def read(
  model: Autoencoder,
  variables: Any,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Encodes all images of a split, which stay in memory.

  A model that draws its latents (`kl`) gives draws, not means: its decoder was
  trained on the distribution of draws.

  Args:
    batches: of `data.evaluation_batches`, in one process.

  Returns:
    Latents float32 [n, H, W, D], images uint8 [n, h, w, 3] and labels [n].

  Raises:
    InputError: images of different sizes.
  """
  latents, images, labels, sides = [], [], [], set()
  for i, batch in enumerate(batches):
    real = batch['mask']
    sides.update(zip(batch['height'], batch['width'], strict=True))
    padded = {tuple(map(model.padded, x)) for x in sides}
    if len(padded) > 1:
      raise InputError(
        'a prior needs images of one size: train the model with '
        '--config.data.whole=false, or on images that are all alike'
      )
    ((h, w),) = padded
    own = batch['image'][:, :h, :w]
    rows = put_batch({'image': own}, mesh)['image']
    key = jax.random.fold_in(jax.random.key(0), i)
    z = jax.device_get(_encode(model, mesh, variables, rows, key))
    latents.append(z[real])
    images.append(own[real])
    labels.append(batch['label'][real])
  latents, images, labels = map(np.concatenate, (latents, images, labels))
  return latents, images, labels


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(model, mesh, variables, images, key) -> Array:
  draws = isinstance(model.bottleneck, KL)
  output = model.apply(
    variables, to_float(images), train=draws, rngs={'bottleneck': key}
  )
  quantized = output.latent.quantized
  return jax.lax.with_sharding_constraint(quantized, replicated(mesh))


def features_of(
  extractor: Extractor, images: np.ndarray, mesh: Mesh
) -> np.ndarray:
  """Computes the features of images uint8 [n, h, w, 3]: float32 [n, width]."""
  return np.concatenate(
    [
      extract(extractor, rows, mesh)[:count]
      for _, rows, count in batches_of(images, mesh)
    ]
  )


def fit_and_draw(
  prior: vector.Prior, latents: np.ndarray, n: int, seed: int, mesh: Mesh
) -> tuple[np.ndarray, dict[str, float], vector.State]:
  """Fits a prior to latents [t, d] and draws n.

  Returns:
    Latents float32 [n, d]; the seconds to `fit` and to `draw` (the second of
    two draws, so without compilation); and the state.
  """
  started = time.perf_counter()
  state = jax.block_until_ready(prior.fit(latents, seed))
  seconds = {'fit': time.perf_counter() - started}
  for _ in range(2):
    started = time.perf_counter()
    drawn = vector.draw(prior, state, jax.random.key(seed), n, mesh)
    jax.block_until_ready(drawn)
    seconds['draw'] = time.perf_counter() - started
  return np.asarray(drawn), seconds, state


class Real(NamedTuple):
  """Real images and their scores, computed before any image is drawn."""

  train: ImageSet
  held_out: ImageSet
  extractor: Extractor  # of their features
  baselines: dict[str, float]  # scores of `train` against `held_out`
  nearest: dict[str, memorization.Reference]


def compare_real(
  train: ImageSet, held_out: ImageSet, extractor: Extractor
) -> Real:
  """Scores real training images against held-out ones, as the baseline."""
  some = _first(train, len(held_out.latents))
  return Real(
    train,
    held_out,
    extractor,
    {
      'frechet': _frechet(some, held_out, extractor),
      **_wasserstein(some.latents, held_out.latents),
    },
    {
      'latents': memorization.reference(train.latents, held_out.latents),
      'images': memorization.reference(
        _rows(train.images), _rows(held_out.images[:COMPARED])
      ),
    },
  )


def score(drawn: ImageSet, real: Real) -> dict[str, Any]:
  """Scores drawn images against held-out images and training images.

  Returns:
    `distances` to the held-out images: frechet (of features), marginal, sliced
    and exact (Wasserstein, of latents); `baselines`, the same of as many
    training images; `frechet_to_train`; `manifold`, of features against the
    held-out images; `memorization`, of `latents` and of `images`.
  """
  images = _score_images(drawn, real)
  return {
    'distances': {
      'frechet': images['frechet'],
      **_wasserstein(drawn.latents, real.held_out.latents),
    },
    'baselines': real.baselines,
    'frechet_to_train': images['frechet_to_train'],
    'manifold': images['manifold'],
    'memorization': {
      'latents': memorization.against(drawn.latents, real.nearest['latents']),
      'images': images['memorization'],
    },
  }


def floors(reconstructed: ImageSet, real: Real) -> dict[str, dict[str, Any]]:
  """Scores what no draw is expected to beat, as draws are scored.

  A decoder loses what the code lost: draws that follow the distribution of
  codes exactly score as reconstructions of held-out images do.

  Args:
    reconstructed: the held-out images, coded and decoded. Their latents are
      those of the held-out images, and no score is made of them.

  Returns:
    `train`: frechet and manifold of as many training images as there are held
    out. `reconstructions`: the same of reconstructions, frechet_to_train, and
    memorization of images.
  """
  held_out = real.held_out.features
  some = _first(real.train, len(held_out))
  return {
    'train': {
      'frechet': real.baselines['frechet'],
      'manifold': manifold_scores(held_out, some.features),
    },
    'reconstructions': _score_images(reconstructed, real),
  }


def _score_images(some: ImageSet, real: Real) -> dict[str, Any]:
  return {
    'frechet': _frechet(some, real.held_out, real.extractor),
    'frechet_to_train': _frechet(some, real.train, real.extractor),
    'manifold': manifold_scores(real.held_out.features, some.features),
    'memorization': memorization.against(
      _rows(some.images[:COMPARED]), real.nearest['images']
    ),
  }


def _wasserstein(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
  return {
    'marginal': wasserstein.marginal(a, b),
    'sliced': wasserstein.sliced(a, b),
    'exact': wasserstein.exact(a, b),
  }


def nearest_images(
  drawn: np.ndarray, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns how far drawn images lie from their nearest training images.

  Args:
    drawn, train: uint8 [n, h, w, 3] and [t, h, w, 3].

  Returns:
    The Euclidean distance of pixels in [0, 1], and the number of the training
    image: [n] each.
  """
  return memorization.nearest(_rows(drawn), _rows(train))


def _first(some: ImageSet, n: int) -> ImageSet:
  return ImageSet(*(x[:n] for x in some))


def _rows(images: np.ndarray) -> np.ndarray:
  """Returns images as rows of numbers in [0, 1]."""
  return images.reshape(len(images), -1).astype(np.float32) / 255


def _frechet(a: ImageSet, b: ImageSet, extractor: Extractor) -> float:
  sides = extractor.start()
  for side, images in zip(sides, (a, b), strict=True):
    side.add(images.features)
  return float(extractor.score(*sides))
