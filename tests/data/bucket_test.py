"""Data sets of tfds that are prepared in a bucket."""

import io

import numpy as np
from PIL import Image

from lasers_jax.data import TrainPipeline, open_source
from tests import stores
from tests.data.made import image_feature, noise, write_tfds


def test_a_data_set_in_a_bucket(gs_folder, tmp_path, monkeypatch):
  images = [noise(8, 8) for _ in range(4)]
  examples = []
  for image in images:
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'PNG')
    examples.append({'image': file.getvalue()})
  write_tfds(tmp_path, 'far', {'image': image_feature()}, examples)
  stores.upload(tmp_path, gs_folder)
  monkeypatch.setenv('TFDS_DATA_DIR', gs_folder)
  source = open_source('far', 'train')
  assert len(source) == 4
  for i, image in enumerate(images):
    np.testing.assert_array_equal(source[i]['image'], image)
  here = open_source('far', 'train', options={'root': str(tmp_path)})
  assert source.fingerprint == here.fingerprint
  there, local = (TrainPipeline(x, 2, 8).batch(0) for x in (source, here))
  np.testing.assert_array_equal(there['image'], local['image'])
