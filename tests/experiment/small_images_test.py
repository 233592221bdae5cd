"""What sends small images, at which bits, and why not."""

import sys

import jax
import numpy as np
from PIL import Image

import lasers_jax as lj
from lasers_jax.data import DataSettings
from lasers_jax.degradations import DEGRADATIONS
from lasers_jax.experiment.small_images import senders
from tests import tiny

SUPERRES = DEGRADATIONS['superres'](scale=2)
DATA = DataSettings('photos', side=64)


def test_photo_codec_sends_the_small_image_that_it_would_code():
  image = Image.fromarray(tiny.images(1)[0]).resize((32, 32))
  small = np.asarray(image, np.float32) / 255
  send = senders(SUPERRES, DATA, 8.0)['photo_codec_small']
  made, bits = send(small, np.zeros((64, 64), bool))
  codec = lj.load('photo-codec').with_(step=0.12)
  data = codec.compress(np.asarray(image), context=True)
  assert bits == 8 * len(data) / 64**2
  arrived = codec.decompress(data).astype(np.float32) / 255
  expected = jax.image.resize(arrived, (64, 64, 3), 'cubic')
  np.testing.assert_allclose(made, expected, atol=1e-5)


def test_it_says_why_it_sends_nothing(monkeypatch):
  data = DataSettings('cifar10', side=32)
  assert senders(SUPERRES, data, 2.0)['photo_codec_small'].reason == (
    'photo-codec sends small images from 32 pixels up, and these have 16: a '
    'large part of a file would be its header'
  )
  monkeypatch.setitem(sys.modules, 'constriction', None)
  found = senders(SUPERRES, DATA, 2.0)
  assert found['photo_codec_small'].reason.startswith(
    'writing and reading files of codes needs the package constriction'
  )
  assert callable(found['webp_small'])


def test_no_rate_and_no_small_image_send_nothing():
  assert senders(SUPERRES, DATA, None) == {}
  assert senders(DEGRADATIONS['inpaint'](), DATA, 2.0) == {}
