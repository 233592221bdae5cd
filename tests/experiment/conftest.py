"""A model with a codec, images of several sizes, and their files."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lasers_jax.experiment import codec_files, loading


@pytest.fixture(scope='session')
def coded_run(tiny_run, tmp_path_factory):
  """The finished run, read, with its codes counted."""
  path = tmp_path_factory.mktemp('model') / 'run'
  shutil.copytree(tiny_run.workdir, path)
  trained = loading.load(path)
  return trained, trained.encoder()


@pytest.fixture(scope='session')
def some_pictures(tmp_path_factory):
  """Pictures of sizes that the factor divides and does not."""
  place, rng = tmp_path_factory.mktemp('some'), np.random.default_rng(3)
  for i, size in enumerate([(16, 16), (17, 31), (1, 1)]):
    array = rng.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(array).save(place / f'{i}.png')
  return place


@pytest.fixture(scope='session')
def some_files(coded_run, some_pictures, tmp_path_factory):
  written = tmp_path_factory.mktemp('files')
  pictures = sorted(map(str, some_pictures.iterdir()))
  codec_files.encode_files(coded_run[0], pictures, str(written))
  return written
