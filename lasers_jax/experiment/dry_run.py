"""Compiles the step of a run for machines that need not be there."""

import collections
import dataclasses
import math
import re
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lasers_jax.core import machines, programs, sharding
from lasers_jax.core.flops import count_flops
from lasers_jax.errors import InputError
from lasers_jax.experiment import loop, settings
from lasers_jax.training.objective import make_objective


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What a machine needs for a step of a run, as its compiler says.

  Bytes and FLOPs are those of one device. What is not known is None.

  Attributes:
    machine: its name, see `machines.describe`.
    device: the kind of its devices.
    devices, hosts: how many there are.
    mesh: devices along each axis.
    batch_size: images in a step, over all devices.
    parameters: numbers in the networks, over all devices.
    parameter_bytes, state_bytes: of the parameters, and of the whole state.
    argument_bytes: of the state, the images and the perceptual network.
    temporary_bytes: the most that is needed besides during a step.
    total_bytes: all that is needed.
    memory: bytes that a program may use.
    too_large: why the compiler gave up; '' where it did not.
    flops: operations of the products and convolutions of a step.
    seconds_at_peak: the time of a step if every operation ran at the peak.
    seconds_by_cycles: the time of a step that the compiler for TPUs expects.
    seconds_of_branches: the same of what seldom runs, as a revival of atoms.
    collectives: kind -> how many, and their bytes together.
    compile_seconds: of the processor.
    compile_bytes: the most that this process held so far.
  """

  machine: str
  device: str
  devices: int
  hosts: int
  mesh: dict[str, int]
  batch_size: int
  parameters: int
  parameter_bytes: int
  state_bytes: int
  memory: int | None
  argument_bytes: int | None = None
  temporary_bytes: int | None = None
  total_bytes: int | None = None
  too_large: str = ''
  flops: float | None = None
  seconds_at_peak: float | None = None
  seconds_by_cycles: float | None = None
  seconds_of_branches: float | None = None
  collectives: dict[str, dict[str, int]] = dataclasses.field(
    default_factory=dict
  )
  compile_seconds: float | None = None
  compile_bytes: int | None = None

  @property
  def seconds(self) -> float | None:
    """The best estimate of the time of a step."""
    return self.seconds_by_cycles or self.seconds_at_peak

  @property
  def fits(self) -> bool:
    """Whether a step fits into the memory of a device, as far as is known."""
    if self.too_large or self.memory is None or self.total_bytes is None:
      return not self.too_large
    return self.total_bytes <= self.memory


def dry_run(config: Mapping[str, Any], names: Sequence[str]) -> list[Estimate]:
  """Returns what the step of a run needs on each of some machines.

  Checks config, mesh and batch as a run does; opens no data set, and runs
  nothing.

  Args:
    config: nested dictionaries, as the files of `configs/` make them.
    names: of the machines; see `machines.describe`.

  Raises:
    InputError: a user error, on any of the machines.
  """
  return estimate(of_model(config), names)


class Task(NamedTuple):
  """What is compiled: the step of a run, on any mesh.

  Attributes:
    run: has the settings `mesh` and `batch_size`.
    check: raises InputError where a mesh does not suit.
    build: returns the functions of the run on a mesh.
    trace: traces the step of these functions; its arguments may be shapes.
  """

  run: Any
  check: Callable[[Mesh], None]
  build: Callable[[Mesh], loop.Program]
  trace: Callable[[loop.Program, Mesh], jax.stages.Traced]


def of_model(config: Mapping[str, Any]) -> Task:
  """Returns the step of an autoencoder."""
  experiment = settings.from_config(config)
  objective, params = make_objective(
    experiment.model, experiment.loss, experiment.degradation
  )
  objective.check_weights(experiment.data.side)

  def trace(program: loop.Program, mesh: Mesh) -> jax.stages.Traced:
    everywhere = sharding.replicated(mesh)
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
      params,
    )
    return loop.trace_step(experiment, mesh, program, shapes)

  return Task(
    experiment,
    lambda mesh: loop.check_sizes(experiment, mesh),
    lambda mesh: loop.build_program(experiment, objective, mesh),
    trace,
  )


def estimate(task: Task, names: Sequence[str]) -> list[Estimate]:
  """Returns what a step needs on each of some machines; see `dry_run`."""
  found = [machines.describe(name) for name in names]
  meshes = [arrange(task, machine) for machine in found]
  return [
    _estimate(task, machine, mesh)
    for machine, mesh in zip(found, meshes, strict=True)
  ]


def arrange(task: Task, machine: machines.Machine) -> Mesh:
  """Returns the mesh of a run on a machine; checks that it divides a batch."""
  try:
    mesh = sharding.make_mesh(**vars(task.run.mesh), devices=machine.devices)
    task.check(mesh)
  except InputError as error:
    raise InputError(f'{machine.name}: {error}') from error
  return mesh


def trace(task: Task, mesh: Mesh) -> jax.stages.Traced:
  """Traces the step of a run for a mesh of devices that need not be there."""
  return task.trace(task.build(mesh), mesh)


def _estimate(task: Task, machine: machines.Machine, mesh: Mesh) -> Estimate:
  """Compiles the step of a run for a machine, and reads what it needs."""
  started = time.process_time()
  program, traced = task.build(mesh), trace(task, mesh)
  state = program.target
  params = state.params, dict(program.frozen)
  platform = mesh.devices.flat[0].platform
  flops = count_flops(traced.jaxpr, platform) / mesh.size
  known = Estimate(
    machine=machine.name,
    device=machine.devices[0].device_kind,
    devices=mesh.size,
    hosts=len({d.process_index for d in mesh.devices.flat}),
    mesh=dict(mesh.shape),
    batch_size=task.run.batch_size,
    parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
    parameter_bytes=sharding.bytes_per_device(params),
    state_bytes=sharding.bytes_per_device(state),
    memory=machine.chip.memory,
    flops=flops,
    seconds_at_peak=machine.chip.flops and flops / machine.chip.flops,
  )
  try:
    compiled = traced.lower().compile(dict(machine.options))
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return dataclasses.replace(known, too_large=_reason(error))
  return dataclasses.replace(
    known,
    **_read(compiled, machine.chip),
    compile_seconds=round(time.process_time() - started, 1),
    compile_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
  )


def _read(compiled: Any, chip: machines.Chip) -> dict[str, Any]:
  """Returns the fields of an `Estimate` that a compiled program tells."""
  memory, text = programs.memory(compiled), compiled.as_text()
  count, size = collections.Counter(), collections.Counter()
  for one in programs.collectives(text):
    count[one.kind] += one.times
    size[one.kind] += one.times * one.bytes
  fields = {
    'argument_bytes': memory.arguments,
    'temporary_bytes': memory.temporaries,
    'total_bytes': memory.total,
    'collectives': {
      kind: {'count': count[kind], 'bytes': size[kind]}
      for kind in programs.COLLECTIVES
      if count[kind]
    },
  }
  cycles = programs.estimated_cycles(text)
  if cycles and chip.clock:
    fields['seconds_by_cycles'] = cycles[0] / chip.clock
    fields['seconds_of_branches'] = cycles[1] / chip.clock
  return fields


def _reason(error: Exception) -> str:
  """Returns the first sentence of a compiler that ran out of memory."""
  text = ' '.join(str(error).split()).removeprefix('RESOURCE_EXHAUSTED: ')
  return re.split(r'(?<=\w)\. ', text, maxsplit=1)[0][:200]
