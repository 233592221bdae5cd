import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.pretrained.clip import ClipImageTower, clip_params, clip_tower

FIELDS = {'side': 56, 'patch': 14, 'width': 128, 'layers': 2, 'embedding': 48}
TOWER = 'vision_model.'
LAYER = f'{TOWER}encoder.layers.1.'


@pytest.fixture(scope='module')
def network():
  torch = pytest.importorskip('torch', reason='what ours is held against')
  from tests.pretrained import torch_clip

  with torch.inference_mode():
    yield torch_clip.randomize(torch_clip.Tower(**FIELDS), seed=0)


def torch_output(network, images):
  import torch

  return network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()


@pytest.fixture(scope='module')
def arrays(network):
  return {name: x.numpy() for name, x in network.state_dict().items()}


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return rng.uniform(0, 1, (3, 56, 56, 3)).astype(np.float32)


def test_equals_torch_with_the_same_weights(network, arrays, images):
  expected = torch_output(network, images)
  apply = jax.jit(clip_tower(arrays).apply)
  embeddings = apply({'params': clip_params(arrays)}, images)
  assert embeddings.dtype == jnp.float32
  assert np.abs(expected[0] - expected[1]).max() > 0.01
  np.testing.assert_allclose(embeddings, expected, atol=2e-6)
  np.testing.assert_allclose(
    np.linalg.norm(embeddings, axis=-1), np.ones(3), rtol=1e-6
  )


def test_fields_are_read_from_the_weights(arrays):
  assert clip_tower(arrays) == ClipImageTower(**FIELDS)


def test_every_array_of_the_tower_is_used(arrays):
  leaves = jax.tree.leaves(clip_params(arrays))
  assert len(leaves) == len(arrays)
  assert {x.dtype for x in leaves} == {np.dtype('float32')}
  assert sum(x.size for x in leaves) == sum(x.size for x in arrays.values())
  # A checkpoint of the whole of CLIP holds more.
  more = {
    'logit_scale': np.float32(4.6),
    'text_projection.weight': np.zeros((48, 48)),
    f'{TOWER}embeddings.position_ids': np.arange(17)[None],
  }
  assert len(jax.tree.leaves(clip_params({**arrays, **more}))) == len(leaves)


def test_has_the_parameters_of_the_published_tower():
  tower = ClipImageTower(336, 14, 1024, 24, 768)
  images = jax.ShapeDtypeStruct((1, 336, 336, 3), jnp.float32)
  shapes = jax.eval_shape(tower.init, jax.random.key(0), images)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == 304_293_888


@pytest.mark.parametrize(
  'name',
  [
    f'{TOWER}embeddings.class_embedding',
    f'{TOWER}embeddings.patch_embedding.weight',
    f'{TOWER}embeddings.position_embedding.weight',
    f'{TOWER}pre_layrnorm.weight',
    f'{LAYER}self_attn.out_proj.bias',
    f'{LAYER}mlp.fc1.weight',
    f'{LAYER}layer_norm2.bias',
    f'{TOWER}post_layernorm.bias',
    'visual_projection.weight',
  ],
)
def test_what_is_missing_or_of_another_shape_is_named(arrays, name):
  rest = {key: x for key, x in arrays.items() if key != name}
  with pytest.raises(InputError, match=f'lack the array {name}'):
    clip_params(rest)
  rest[name] = arrays[name][..., :-1]
  with pytest.raises(InputError, match=f'array {name} of .*, not'):
    clip_params(rest)


def test_a_tower_of_another_kind_is_refused(arrays):
  name = f'{TOWER}embeddings.position_embedding.weight'
  rest = {**arrays, name: arrays[name][:-1]}
  with pytest.raises(InputError, match='a square [+] 1, not 16'):
    clip_params(rest)


@pytest.mark.parametrize(
  'shape, dtype, match',
  [
    ((1, 70, 56, 3), 'float32', '56, 56, 3'),
    ((56, 56, 3), 'float32', '56, 56, 3'),
    ((1, 56, 56, 3), 'uint8', 'floats in'),
  ],
)
def test_other_images_are_refused(shape, dtype, match):
  with pytest.raises(ValueError, match=match):
    ClipImageTower(**FIELDS).apply({}, np.zeros(shape, dtype))
