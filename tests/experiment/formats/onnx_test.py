"""Models as graphs of ONNX, run by onnxruntime, against the model itself."""

import functools
import sys

import jax
import numpy as np
import pytest

import lasers_jax as lj
from tests.experiment.formats.drawn import IMAGES, VQVAE, made
from tests.experiment.formats.torch_test import BOTTLENECKS, standardized

# Not the number and the sides of the example that the converter sees.
OTHERS = np.random.default_rng(2).random((3, 8, 40, 3), np.float32)


def installed():
  """Returns onnxruntime, where all that is needed is installed."""
  for name in ('torch', 'onnxscript'):
    pytest.importorskip(name, reason=f'{name} is not installed')
  return pytest.importorskip('onnxruntime', reason='not installed')


def as_here(planes):
  return planes.transpose(0, 2, 3, 1)


MODELS = {
  'attention': ({'name': 'vq', 'K': 16}, {}, ['codes']),
  'patches': (BOTTLENECKS['patches'], VQVAE, ['codes']),
  'residual': (BOTTLENECKS['residual'], VQVAE, ['0', '1', '2']),
  'sparse': (BOTTLENECKS['rounded'], VQVAE, ['atoms', 'coefficients']),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_graphs_give_the_same_latents_and_images(name, tmp_path):
  runtime = installed()
  bottleneck, network, names = MODELS[name]
  model = made(bottleneck, **network)
  if 'patch' in bottleneck:
    model = standardized(model)
  model.export(tmp_path / 'out', format='onnx')
  encode, decode = (
    runtime.InferenceSession(tmp_path / 'out' / f'{which}.onnx')
    for which in ('encode', 'decode')
  )
  assert [x.name for x in decode.get_inputs()] == names
  apply = functools.partial(model.module.apply, model.variables)
  for images in IMAGES, OTHERS:
    (z,) = encode.run(None, {'images': images.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(as_here(z), apply(images).z, atol=1e-5)
    codes = model.encode(images)
    given = [np.asarray(x) for x in jax.tree.leaves(codes)]
    (found,) = decode.run(None, dict(zip(names, given, strict=True)))
    expected = apply(codes, method='decode')
    np.testing.assert_allclose(as_here(found), expected, atol=1e-5)


def test_what_is_not_there(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnxscript', None)
  monkeypatch.setitem(sys.modules, 'torch', None)
  model = made({'name': 'none'}, **VQVAE)
  with pytest.raises(lj.InputError) as raised:
    model.export(tmp_path / 'out', format='onnx')
  assert str(raised.value) == (
    "format='onnx' needs torch and onnxscript: pip install 'lasers_jax[onnx]'"
  )
  model = made({'name': 'none'}, name='tiny', D=4)
  with pytest.raises(lj.InputError, match="'onnx' holds the networks resnet"):
    model.export(tmp_path / 'out', format='onnx')
  assert not (tmp_path / 'out').exists()
