"""Where arrays live: one mesh, `data` × `fsdp` × `model`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lasers_jax.errors import InputError

AXES = ('data', 'fsdp', 'model')
# Smaller arrays are copied to every device: splitting them costs more.
_SMALLEST_SPLIT = 2**12


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  model: int = 1,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """Arranges devices in a mesh with the axes data, fsdp and model.

  Slices of TPUs lie along data: the network between them is the slowest.

  Args:
    data: devices along which batches are split; -1 takes all that are left.
    fsdp: devices along which batches and parameters are split.
    model: devices along which the atoms of the dictionary, or the values of
      the events of a prior, are split.
    devices: those of all processes, attached or only described (see
      `machines.describe`); None takes the attached ones.

  Raises:
    InputError: the mesh needs more devices than there are, leaves some out of
      a run of several processes, splits a batch unlike the processes do, or
      does not go with the slices or the wires between the devices.
  """
  devices = jax.devices() if devices is None else devices
  count, processes = len(devices), len({d.process_index for d in devices})
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
  if processes > 1 and (need < count or (shape[0] * fsdp) % processes):
    raise InputError(
      f'with {processes} processes, the mesh must use all {count} '
      'devices and data × fsdp must be a multiple of the processes'
    )
  grid = _arranged(shape, devices[:need])
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def _arranged(
  shape: tuple[int, int, int], devices: Sequence[Any]
) -> np.ndarray:
  """Returns an array of devices in which neighbours are near each other."""
  data, fsdp, model = shape
  slices = len({getattr(d, 'slice_index', 0) for d in devices})
  if devices[0].platform != 'tpu':  # there, an island of fast links
    slices = 1
  if data % slices:
    raise InputError(
      f'the mesh axis data={data} must be a multiple of the {slices} slices: '
      'lower fsdp or model'
    )
  try:
    if slices == 1:
      return mesh_utils.create_device_mesh(
        shape, devices, allow_split_physical_axes=True
      )
    return mesh_utils.create_hybrid_device_mesh(
      (data // slices, fsdp, model),
      (slices, 1, 1),
      devices,
      allow_split_physical_axes=True,
    )
  except (AssertionError, NotImplementedError, ValueError) as error:
    raise InputError(
      f'{len(devices)} devices of kind {devices[0].device_kind} cannot be '
      f'arranged as data={data} × fsdp={fsdp} × model={model}: {error}'
    ) from error


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


def state_shardings(
  state,
  mesh: Mesh,
  atoms: int = 0,
  values: Callable[[Sequence[str]], Sequence[int]] = lambda names: (),
):
  """Chooses where each array of a state lives.

  In the bottleneck, the first axis of length `atoms` (K) is split along
  `model`. Elsewhere, of large arrays, so is the axis of `values`, and the
  longest of the others along `fsdp`. What the mesh does not divide is copied.
  Optimizer states and averages go where their parameters go, since they have
  the same paths and shapes.

  Args:
    state: a pytree of arrays or of their shapes.
    mesh: see `make_mesh`.
    atoms: K, the atoms of the bottleneck.
    values: `MapPrior.value_axes`, of a prior.

  Returns:
    A pytree of NamedSharding.
  """

  def sharding(path, leaf) -> NamedSharding:
    names = [getattr(p, 'key', '') for p in path]
    shape = leaf.shape
    places: list[str | None] = [None] * len(shape)

    def split(name: str, axes: Sequence[int]) -> None:
      """Splits the longest of some axes that a mesh axis divides."""
      fit = [i for i in axes if shape[i] % mesh.shape[name] == 0]
      if fit and mesh.shape[name] > 1:
        places[max(fit, key=lambda i: shape[i])] = name

    if 'bottleneck' in names:
      split('model', [i for i, n in enumerate(shape) if n == atoms][:1])
    elif math.prod(shape) >= _SMALLEST_SPLIT:
      split('model', values(names))
      split('fsdp', [i for i, x in enumerate(places) if x is None])
    while places and places[-1] is None:
      places.pop()
    return NamedSharding(mesh, PartitionSpec(*places))

  return jax.tree_util.tree_map_with_path(sharding, state)


def with_shardings(shapes, shardings):
  """Adds its sharding to each shape."""
  return jax.tree.map(
    lambda x, home: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=home),
    shapes,
    shardings,
  )


def bytes_per_device(state) -> int:
  """Returns the bytes that a state, or its shapes, takes on each device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(state)
  )
