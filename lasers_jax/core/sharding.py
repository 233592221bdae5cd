"""Where arrays live: one mesh, `data` × `fsdp` × `model`."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lasers_jax.errors import InputError

AXES = ('data', 'fsdp', 'model')
# Smaller arrays are copied to every device: splitting them costs more.
_SMALLEST_SPLIT = 2**12


def make_mesh(data: int = -1, fsdp: int = 1, model: int = 1) -> Mesh:
  """Arranges the devices in a mesh with the axes data, fsdp and model.

  Args:
    data: devices along which batches are split; -1 takes all that are left.
    fsdp: devices along which batches and parameters are split.
    model: devices along which the atoms of the dictionary are split.

  Raises:
    InputError: the mesh needs more devices than there are, leaves some out of
      a run of several processes, or splits a batch unlike the processes do.
  """
  count = jax.device_count()
  if fsdp < 1 or model < 1 or (data < 1 and data != -1):
    raise InputError(
      f'mesh axes must be at least 1 (data may be -1): data={data}, '
      f'fsdp={fsdp}, model={model}'
    )
  shape = (count // (fsdp * model) if data == -1 else data, fsdp, model)
  need = math.prod(shape)
  if need == 0 or need > count:
    raise InputError(
      f'the mesh data={data} × fsdp={fsdp} × model={model} needs '
      f'{max(need, fsdp * model)} devices, and there are {count}'
    )
  if jax.process_count() > 1 and (
    need < count or (shape[0] * fsdp) % jax.process_count()
  ):
    raise InputError(
      f'with {jax.process_count()} processes, the mesh must use all {count} '
      'devices and data × fsdp must be a multiple of the processes'
    )
  devices = jax.devices()[:need]
  return jax.make_mesh(
    shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
  )


def check_batch(batch_size: int, mesh: Mesh, name: str) -> None:
  """Raises InputError unless the mesh divides a batch."""
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size < 1 or batch_size % ways:
    raise InputError(
      f'{name}={batch_size} cannot be split {ways} ways '
      f'(data={mesh.shape["data"]} × fsdp={mesh.shape["fsdp"]})'
    )


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding with a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits arrays along their first axis."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Makes global arrays of the rows that this process holds."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, value)
    for name, value in batch.items()
  }


def state_shardings(state, mesh: Mesh, atoms: int):
  """Chooses where each array of a state lives.

  In the bottleneck, the first axis of length `atoms` (K) is split along
  `model`; elsewhere, the longest axis along `fsdp`. Arrays that are small, or
  that the mesh does not divide, are copied. Optimizer states and averages go
  where their parameters go, since they have the same paths and shapes.

  Args:
    state: a pytree of arrays or of their shapes.
    mesh: see `make_mesh`.
    atoms: K, the atoms of the bottleneck.

  Returns:
    A pytree of NamedSharding.
  """

  def sharding(path, leaf) -> NamedSharding:
    inside = any(getattr(p, 'key', None) == 'bottleneck' for p in path)
    axis, name = None, 'model' if inside else 'fsdp'
    if inside and atoms in leaf.shape:
      axis = leaf.shape.index(atoms)
    elif not inside and math.prod(leaf.shape) >= _SMALLEST_SPLIT:
      ways = mesh.shape[name]
      divided = [n for n in leaf.shape if n % ways == 0]
      axis = leaf.shape.index(max(divided)) if divided else None
    if axis is None or leaf.shape[axis] % mesh.shape[name]:
      return replicated(mesh)
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, name))

  return jax.tree_util.tree_map_with_path(sharding, state)


def with_shardings(shapes, shardings):
  """Adds its sharding to each shape."""
  return jax.tree.map(
    lambda x, home: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=home),
    shapes,
    shardings,
  )


def bytes_per_device(state) -> int:
  """Returns the bytes of a state on the fullest device of this process."""
  totals: dict[int, int] = {}
  for leaf in jax.tree.leaves(state):
    for shard in leaf.addressable_shards:
      totals[shard.device.id] = totals.get(shard.device.id, 0) + (
        shard.data.nbytes
      )
  return max(totals.values())
