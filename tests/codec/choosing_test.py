"""Integers chosen by the decoder and the bits of a file."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.codec import fit_scales, prices
from lasers_jax.codec.choosing import by_bits, descend
from lasers_jax.codec.model import fit_tables
from lasers_jax.core.padding import pad_one
from lasers_jax.experiment import settings

LIMIT, STEP, PRICE = 60, 0.2, 0.15


def built(name='priced', f=4, turned=0.0):
  """A model, and variables of a decoder that is turned from a rotation."""
  network = dict(name='block', D=3 * f**2, f=f, channels=4, blocks=0)
  section = dict(name=name, step=STEP, price=PRICE, limit=LIMIT)
  model = settings.build_model(network, section)
  images = jnp.zeros((1, 2 * f, 2 * f, 3))
  variables = jax.device_get(model.init(jax.random.key(0), images))
  layer, d = variables['params']['decoder']['to_image'], 3 * f**2
  noise = np.random.default_rng(0).standard_normal((d, d)) / np.sqrt(d)
  kernel = layer['kernel'].copy()
  kernel[:d] += turned * noise
  layer['kernel'] = kernel
  return model, variables


def smooth(side, seed=0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  image = np.cumsum(rng.standard_normal((*side, 3)), axis=0)
  return np.uint8(np.clip(128 + 6 * np.cumsum(image, axis=1), 0, 255))


def tables_of(model, variables, context=False):
  images = [smooth((32, 32), seed) for seed in (1, 2, 3)]
  batches = [
    {
      'image': x[None],
      'mask': np.array([True]),
      'height': np.array([32]),
      'width': np.array([32]),
    }
    for x in images
  ]
  return fit_tables(model, variables, batches, context)


def searched(model, variables, tables, image, rounds):
  """Codes before and after, of one image."""
  batch, sizes = pad_one(image, model.pad_multiple)
  fixed = model, variables, tables, batch, sizes
  [codes] = by_bits(*fixed, {0: model.coded_sites(*image.shape[:2])})
  return codes, descend(*fixed, codes, rounds)


def measured(model, variables, tables, image, codes):
  """The squared error of an image, and bits, in float64."""
  decoded = model.apply(variables, codes[None], method='decode')[0]
  decoded = np.asarray(decoded, np.float64)
  height, width, _ = image.shape
  error = decoded[:height, :width] - image / 255
  bits = prices(tables, codes, LIMIT, codes)
  return np.sum(error**2), np.sum(bits, dtype=np.float64)


@pytest.mark.parametrize('name', ['priced', 'entropy'])
def test_a_rotation_leaves_nothing_to_search(name):
  """There the error of latents is that of the image, integer by integer."""
  model, variables = built(name)
  tables = tables_of(model, variables)
  before, after = searched(model, variables, tables, smooth((32, 32)), 4)
  assert np.any(before)
  np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize('side', [(32, 32), (27, 21)])
@pytest.mark.parametrize('with_context', [False, True])
@pytest.mark.parametrize('name', ['priced', 'entropy'])
def test_error_plus_price_falls(name, with_context, side, monkeypatch):
  monkeypatch.setattr(fit_scales, 'STEPS', 20)
  model, variables = built(name, turned=0.5)
  tables, image = tables_of(model, variables, with_context), smooth(side)
  before, after = searched(model, variables, tables, image, 8)
  assert after.dtype == np.int32
  assert after.shape == before.shape == (*model.coded_sites(*side), 48)
  # To an orthonormal matrix, entries of variance s² / D add s² to c.
  price = PRICE * STEP**2 * (1 + 0.5**2)
  errors, bits = np.transpose(
    [measured(model, variables, tables, image, x) for x in (before, after)]
  )
  costs = errors + price * bits
  assert costs[1] < 0.95 * costs[0]


def test_no_round_changes_nothing():
  model, variables = built(turned=0.5)
  tables = tables_of(model, variables)
  before, after = searched(model, variables, tables, smooth((16, 16)), 0)
  np.testing.assert_array_equal(before, after)


def test_it_goes_a_third_of_the_way_to_the_exhaustive_minimum():
  """Of sites of one pixel and three integers each, which no other site hears.

  The rest are minima that no change of a single integer leaves.
  """
  model, variables = built(f=1, turned=0.6)
  tables = tables_of(model, variables)
  image = np.random.default_rng(0).integers(20, 236, (8, 8, 3), np.uint8)
  before, after = searched(model, variables, tables, image, 24)
  around = itertools.product(range(-3, 4), repeat=3)
  values = before + np.array(list(around), np.int32)[:, None, None]
  decoded = model.apply(variables, values, method='decode')
  errors = np.sum((np.asarray(decoded) - image / 255) ** 2, axis=-1)
  bits = prices(tables, before, LIMIT, values).sum(axis=-1)
  kernel = variables['params']['decoder']['to_image']['kernel'][:3]
  price = PRICE * STEP**2 * np.sum(kernel**2) / 3
  best = np.sum(np.min(errors + price * bits, axis=0))
  first, found = (
    error + price * size
    for error, size in (
      measured(model, variables, tables, image, x) for x in (before, after)
    )
  )
  assert best <= found + 1e-6
  assert first - found > (first - best) / 3
  assert first > 1.1 * best
