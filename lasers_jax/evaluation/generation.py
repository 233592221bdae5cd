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
        'a prior needs images of one size: set data.resize and data.side '
        'so that all are cropped alike'
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
    _distances(some, held_out, extractor),
    {
      'latents': memorization.reference(train.latents, held_out.latents),
      'images': memorization.reference(
        _flat(train), _flat(_first(held_out, COMPARED))
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
  nearest = real.nearest
  return {
    'distances': _distances(drawn, real.held_out, real.extractor),
    'baselines': real.baselines,
    'frechet_to_train': _frechet(drawn, real.train, real.extractor),
    'manifold': manifold_scores(real.held_out.features, drawn.features),
    'memorization': {
      'latents': memorization.against(drawn.latents, nearest['latents']),
      'images': memorization.against(
        _flat(_first(drawn, COMPARED)), nearest['images']
      ),
    },
  }


def _distances(a: ImageSet, b: ImageSet, extractor: Extractor):
  return {
    'frechet': _frechet(a, b, extractor),
    'marginal': wasserstein.marginal(a.latents, b.latents),
    'sliced': wasserstein.sliced(a.latents, b.latents),
    'exact': wasserstein.exact(a.latents, b.latents),
  }


def _first(some: ImageSet, n: int) -> ImageSet:
  return ImageSet(*(x[:n] for x in some))


def _flat(some: ImageSet) -> np.ndarray:
  """Returns images as rows of numbers in [0, 1]."""
  images = some.images
  return images.reshape(len(images), -1).astype(np.float32) / 255


def _frechet(a: ImageSet, b: ImageSet, extractor: Extractor) -> float:
  sides = extractor.start()
  for side, images in zip(sides, (a, b), strict=True):
    side.add(images.features)
  return float(extractor.score(*sides))
