import types

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from lasers_jax.core import machines, sharding
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings
from lasers_jax.priors.maps import Autoregressive
from lasers_jax.priors.maps.layout import Layout
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.prior_step import prior_state_shapes
from lasers_jax.training.state import state_shapes
from tests import tiny


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh(data=2, fsdp=2, model=2)


@pytest.fixture(scope='module')
def places(mesh):
  """Where the state of a tiny run lives, as keystr -> PartitionSpec."""
  run = settings.from_config(tiny.config('unused'))
  optimizer = make_optimizer(run.optimizer, run.steps)
  shapes = state_shapes(run.model, optimizer, tiny.SIDE)
  tree = sharding.state_shardings(shapes, mesh, run.model.bottleneck.K)
  return {
    jax.tree_util.keystr(path): place.spec
    for path, place in jax.tree_util.tree_leaves_with_path(tree)
  }


def test_large_parameters_are_split_along_fsdp(places):
  # 3 × 3 × 32 × 32; the first of the longest axes
  assert places[".params['encoder']['Conv_0']['kernel']"] == P(
    None, None, 'fsdp'
  )


def test_small_parameters_are_copied(places):
  assert places[".params['encoder']['Conv_0']['bias']"] == P()


def test_atoms_are_split_along_model(places):
  assert places[".params['bottleneck']['dictionary']"] == P(None, 'model')
  assert places[".codebook['bottleneck']['use']"] == P('model')
  sizes = ".codebook['bottleneck']['coefficients']['sizes']"
  assert places[sizes] == P('model')
  assert places[".codebook['bottleneck']['mean']"] == P()


def test_moments_and_averages_go_where_their_parameters_go(places):
  for path, place in places.items():
    if path.startswith('.params'):
      name = path.removeprefix('.params')
      same = [place for path, place in places.items() if path.endswith(name)]
      # The parameter, two moments, the average.
      assert same == [place] * 4, name


def test_values_of_events_are_split_along_model():
  run = settings.from_config(tiny.config('unused'))
  fields = {'width': 64, 'heads': 2, 'layers': 1, 'D': 32}
  prior = Autoregressive(
    sites=(2, 2), layout=Layout((2, 2), (256, 64, 30)), **fields
  )
  optimizer = make_optimizer(run.optimizer, run.steps)
  view = jax.ShapeDtypeStruct((1, 2, 2, 3), np.int32)
  shapes = prior_state_shapes(prior, optimizer, view)

  def places(**axes):
    mesh = sharding.make_mesh(**axes)
    tree = sharding.state_shardings(shapes, mesh, values=prior.value_axes)
    return {
      jax.tree_util.keystr(path): place.spec
      for path, place in jax.tree_util.tree_leaves_with_path(tree)
    }

  found = places(data=2, fsdp=2, model=2)
  for name, place in {
    ".params['tables_0']['embedding']": P('model', 'fsdp'),
    ".params['head']['tables_0']['embedding']": P('model', 'fsdp'),
    ".params['head']['outs_0']['kernel']": P('fsdp', 'model'),
    # As many values as the width: the axis is that of the values.
    ".params['head']['outs_1']['kernel']": P('fsdp', 'model'),
    ".params['head']['outs_2']['kernel']": P(),  # small
    ".codebook['vectors_0']": P('model', 'fsdp'),
    ".params['head']['mlps_0']['up']['kernel']": P(None, 'fsdp'),
  }.items():
    assert found[name] == place, name
    # Moments and averages, too.
    copies = [x for path, x in found.items() if path.endswith(name[7:])]
    assert set(copies) == {place}
    assert len(copies) >= (4 if name.startswith('.params') else 1)
  assert places(fsdp=2)[".params['tables_0']['embedding']"] == P('fsdp')


def test_arrays_are_really_split(mesh):
  array = jax.device_put(
    np.zeros((4, 16)), jax.NamedSharding(mesh, P(None, 'model'))
  )
  whole = jax.device_put(np.zeros(10), sharding.replicated(mesh))
  assert {s.data.shape for s in array.addressable_shards} == {(4, 8)}
  assert sharding.bytes_per_device((array, whole)) == 4 * (4 * 8 + 10)


def test_what_the_mesh_does_not_divide_is_copied(mesh):
  state = {'bottleneck': {'dictionary': jax.ShapeDtypeStruct((4, 15), float)}}
  place = sharding.state_shardings(state, mesh, atoms=15)
  assert place['bottleneck']['dictionary'].spec == P()


def test_a_batch_is_split_along_data_and_fsdp(mesh):
  images = tiny.images(8)
  put = sharding.put_batch({'image': images}, mesh)['image']
  assert {s.data.shape[0] for s in put.addressable_shards} == {2}
  np.testing.assert_array_equal(put, images)


def test_the_mesh_takes_what_is_left():
  assert dict(sharding.make_mesh().shape) == dict(data=8, fsdp=1, model=1)
  shape = sharding.make_mesh(fsdp=2, model=2).shape
  assert dict(shape) == dict(data=2, fsdp=2, model=2)
  assert sharding.make_mesh(data=1).size == 1


@pytest.mark.parametrize('axes', [(16, 1, 1), (-1, 4, 4), (2, 2, 4)])
def test_a_mesh_of_too_many_devices_is_refused(axes):
  with pytest.raises(InputError, match='needs 16 devices, and there are 8'):
    sharding.make_mesh(*axes)


@pytest.mark.parametrize('axes', [(0, 1, 1), (-2, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_axes_below_one_are_refused(axes):
  with pytest.raises(InputError, match='mesh axes must be at least 1'):
    sharding.make_mesh(*axes)


def test_a_batch_that_the_mesh_does_not_divide_is_refused(mesh):
  sharding.check_batch(8, mesh, 'batch_size')
  for size in 6, 0:
    with pytest.raises(InputError, match=f'batch_size={size} .* 4 ways'):
      sharding.check_batch(size, mesh, 'batch_size')


def fake_devices(count, processes=1, slices=1):
  """Stands for TPUs that are not there."""
  return [
    types.SimpleNamespace(
      platform='tpu',
      device_kind='TPU of a test',
      process_index=i * processes // count,
      slice_index=i * slices // count,
    )
    for i in range(count)
  ]


def test_the_processes_are_those_of_the_devices():
  devices = fake_devices(8, processes=4)
  for axes in (4, 1, 1), (2, 1, 4):
    with pytest.raises(InputError, match='with 4 processes, the mesh must use'):
      sharding.make_mesh(*axes, devices=devices)


def test_slices_lie_along_data():
  devices = fake_devices(8, processes=2, slices=2)
  with pytest.raises(InputError) as error:
    sharding.make_mesh(1, 8, 1, devices=devices)
  assert str(error.value) == (
    'the mesh axis data=1 must be a multiple of the 2 slices: lower fsdp or '
    'model'
  )


@pytest.mark.parametrize(
  ('name', 'axes'),
  [
    ('2*v5e:4x4', (-1, 1, 1)),
    ('2*v5e:4x4', (2, 8, 2)),
    ('2*v4:2x2x2', (4, 2, 2)),
    ('v5p:4x4x4', (-1, 2, 1)),  # takes part of an axis of the torus
    ('v5p:4x4x4', (2, 16, 2)),
    ('v5e:16x16', (8, 32, 1)),
    ('v6e:4x4', (1, 16, 1)),
    ('v5e:2x2', (2, 1, 1)),  # not all
  ],
)
def test_described_devices_are_arranged(described, name, axes):
  mesh = sharding.make_mesh(*axes, devices=machines.describe(name).devices)
  shape = tuple(mesh.shape.values())
  assert all(a in (b, -1) for a, b in zip(axes, shape, strict=True))
  assert len({d.id for d in mesh.devices.flat}) == mesh.size
  for rows in np.split(mesh.devices, 2 if name.startswith('2*') else 1):
    assert len({getattr(d, 'slice_index', 0) for d in rows.flat}) == 1


def test_devices_that_no_wires_join(described):
  devices = machines.describe('v5e:2x2').devices
  with pytest.raises(InputError) as error:
    sharding.make_mesh(3, 1, 1, devices=devices)
  assert str(error.value).startswith(
    '3 devices of kind TPU v5 lite cannot be arranged as data=3 × fsdp=1 × '
    'model=1: '
  )
