"""Damage of padded batches is that of each image alone."""

import functools

import numpy as np

from lasers_jax.core import sharding
from lasers_jax.degradations import DEGRADATIONS, in_evaluation
from lasers_jax.degradations.baselines import Missing
from lasers_jax.evaluation import degraded
from lasers_jax.evaluation.baselines import measure_baselines, restored_simply
from lasers_jax.evaluation.sending import WEBP, send_small
from lasers_jax.metrics.registry import ALWAYS
from tests import tiny


def batch():
  """Images of 16x16 and 12x14 pixels in one array, and one that only fills."""
  images = tiny.images(3)
  return {
    'image': images,
    'index': np.array([4, 9, -1], np.int32),
    'height': np.array([16, 12, 16], np.int32),
    'width': np.array([16, 14, 16], np.int32),
    'mask': np.array([True, True, False]),
  }


def test_images_are_degraded_without_their_padding():
  given, settings = batch(), DEGRADATIONS['inpaint'](mask='pixels')
  found = degraded.damage(settings, given)
  assert found['inputs'].shape == (3, 16, 16, 4)
  alone = in_evaluation(settings, given['image'][1, :12, :14], 9)
  np.testing.assert_array_equal(found['inputs'][1, :12, :14], alone.inputs)
  np.testing.assert_array_equal(found['known'][1, :12, :14], alone.known)
  # The edge is repeated.
  np.testing.assert_array_equal(
    found['inputs'][1, 12:, :14], np.tile(alone.inputs[-1:], (4, 1, 1))
  )
  (inputs,) = degraded.inputs_of(settings, [given])
  np.testing.assert_array_equal(inputs['image'], found['inputs'])


def test_baselines_read_no_padding_and_count_images_alone():
  given, settings = batch(), DEGRADATIONS['superres'](scale=2)
  mesh = sharding.make_mesh(data=1)
  sent = {
    'webp_small': functools.partial(send_small, WEBP, 8.0),
    'other': Missing('it is not there'),
  }
  found = measure_baselines(settings, [given], mesh, ALWAYS, sent)
  assert found['other'] == {'missing': 'it is not there'}
  assert found['lanczos']['psnr']['count'] == 2
  assert found['webp_small']['bits_per_pixel']['mean'] > 0
  errors = []
  for i, (h, w) in enumerate([(16, 16), (12, 14)]):
    image = given['image'][i, :h, :w]
    made = restored_simply(settings, [image])['lanczos'][0]
    errors.append(np.mean((made / 255 - image / 255) ** 2))
  np.testing.assert_allclose(
    found['lanczos']['psnr']['mean'],
    np.mean(-10 * np.log10(errors)),
    rtol=1e-4,
  )
