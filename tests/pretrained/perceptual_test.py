import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.pretrained import PERCEPTUAL, load_perceptual, perceptual
from lasers_jax.pretrained.lpips import LPIPS
from lasers_jax.pretrained.resnet50 import ResNet50Distance

MODULES = {
  'lpips-vgg16': LPIPS('vgg16'),
  'lpips-alexnet': LPIPS('alexnet'),
  'resnet50': ResNet50Distance(),
}


@pytest.mark.parametrize('kind', PERCEPTUAL)
def test_every_kind_gives_one_distance_an_image(kind, monkeypatch):
  x = jnp.zeros((2, 32, 40, 3))
  shapes = jax.eval_shape(MODULES[kind].init, jax.random.key(0), x, x)['params']
  loaded = lambda path: (MODULES[kind], {'path': path})  # noqa: E731
  monkeypatch.setitem(perceptual.PERCEPTUAL, kind, loaded)
  module, params = load_perceptual(kind, 'file', dtype=jnp.bfloat16)
  assert params == {'path': 'file'}
  assert module.dtype == jnp.bfloat16
  distances = jax.eval_shape(module.apply, {'params': shapes}, x, x)
  assert (distances.shape, distances.dtype) == ((2,), np.float32)


@pytest.mark.parametrize('kind', PERCEPTUAL)
def test_a_missing_file(kind):
  with pytest.raises(InputError, match='no file of weights at nowhere.npz'):
    load_perceptual(kind, 'nowhere.npz')


def test_unknown_kinds_and_missing_weights():
  with pytest.raises(InputError, match="no perceptual distance 'lpips':"):
    load_perceptual('lpips')
  with pytest.raises(InputError, match='loss.perceptual_weights'):
    load_perceptual('resnet50')
