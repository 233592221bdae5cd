"""Machines that programs can be compiled for, attached or only described.

The compilers of XLA need no device: that of TPUs is in libtpu, that of GPUs in
JAX's CUDA plugin. A machine is named by its chips and how many there are:
v5e:4x4, 2*v5e:4x4 (two slices), h100:8, h100:2x8 (two hosts), here.
"""

import importlib.util
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from lasers_jax.errors import InputError, unknown

HERE = 'here'
GIB = 2**30
_NAME = re.compile(
  r'(?:([1-9]\d*)\*)?(\w+)(?::([1-9]\d*(?:x[1-9]\d*)*))?'  # 2*v5e:4x4
)
# JAX takes so much of a GPU's memory, unless it is told otherwise.
_FRACTION_OF_GPU = float(os.environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION', 0.75))


class Chip(NamedTuple):
  """What one device of JAX can do; None where it is not known.

  Attributes:
    flops: dense bfloat16 operations a second, at most.
    bandwidth: bytes a second, from and to its memory.
    memory: bytes that a program may use.
    clock: cycles a second, in which the compiler for TPUs counts.
  """

  flops: float | None = None
  bandwidth: float | None = None
  memory: int | None = None
  clock: float | None = None


class Machine(NamedTuple):
  """Devices of JAX to compile for; with several processes, those of all.

  Attributes:
    name: see `describe`.
    chip: what each of them can do.
    devices: all of them.
    options: of the compiler.
  """

  name: str
  chip: Chip
  devices: Sequence[Any]
  options: Mapping[str, Any] = {}


class _Tpu(NamedTuple):
  """One generation of TPUs.

  Peaks and bandwidths are those of Google's documentation
  (cloud.google.com/tpu/docs/v5e and so on). `gib` is what libtpu 0.0.42 calls
  'available HBM' where a program is too large. The clock is the peak divided by
  the operations in a cycle, 2 · 128² in each matrix unit of that size: libtpu
  expects 94 to 97 % of them from a product of matrices of side 4,096 (v6e:
  87 %, tpu7x: 83 %).
  """

  flops: float
  bandwidth: float
  gib: float
  units: int  # matrix units, in numbers of 128 × 128
  kind: str  # as JAX calls the device
  parts: str = ''  # what a device of JAX is, where there is a choice

  @property
  def chip(self) -> Chip:
    clock = self.flops / (2 * 128**2 * self.units)
    return Chip(self.flops, self.bandwidth, int(self.gib * GIB), clock)


# A device of JAX is a chip; of v4 and v5p both cores of it, of tpu7x a half.
TPUS = {
  'v4': _Tpu(275e12, 1228e9, 30.75, 8, 'TPU v4', 'megacore'),
  'v5e': _Tpu(197e12, 819e9, 15.75, 4, 'TPU v5 lite'),
  'v5p': _Tpu(459e12, 2765e9, 95.74, 8, 'TPU v5'),
  'v6e': _Tpu(918e12, 1640e9, 31.25, 16, 'TPU v6 lite'),
  'tpu7x': _Tpu(1153.5e12, 3690e9, 94.75, 16, 'TPU7x'),
}


class _Gpu(NamedTuple):
  """One GPU, as XLA's compiler asks for it.

  The figures are those of openxla/xla, xla/backends/gpu/target_config/specs
  (h100_sxm, h200, b200, a100_sxm_80). The peak is that of the vendor.
  """

  name: str
  flops: float
  capability: int
  cores: int
  fpus: int  # of a core
  clock_ghz: float
  memory: int
  bandwidth: int
  l2_cache: int
  shared_memory: int  # of a core

  @property
  def chip(self) -> Chip:
    memory = int(self.memory * _FRACTION_OF_GPU)
    return Chip(self.flops, float(self.bandwidth), memory)

  @property
  def target(self) -> str:
    """Returns a stream_executor.GpuTargetConfigProto as text."""
    return f"""
      gpu_device_info {{
        threads_per_block_limit: 1024
        threads_per_warp: 32
        shared_memory_per_block: 49152
        shared_memory_per_block_optin: {self.shared_memory - 1024}
        shared_memory_per_core: {self.shared_memory}
        threads_per_core_limit: 2048
        core_count: {self.cores}
        fpus_per_core: {self.fpus}
        block_dim_limit_x: 2147483647
        block_dim_limit_y: 65535
        block_dim_limit_z: 65535
        thread_dim_limit_x: 1024
        thread_dim_limit_y: 1024
        thread_dim_limit_z: 64
        registers_per_core_limit: 65536
        registers_per_block_limit: 65536
        memory_bandwidth: {self.bandwidth}
        l2_cache_size: {self.l2_cache}
        clock_rate_ghz: {self.clock_ghz}
        device_memory_size: {self.memory}
        cuda_compute_capability {{ major: {self.capability} }}
      }}
      platform_name: "CUDA"
      dnn_version_info {{ major: 9 minor: 10 }}
      device_description_str: "{self.name}"
    """


GPUS = {
  'a100': _Gpu(
    'NVIDIA A100-SXM4-80GB',
    flops=312e12,
    capability=8,
    cores=108,
    fpus=64,
    clock_ghz=1.41,
    memory=85100068864,
    bandwidth=2039040000000,
    l2_cache=41943040,
    shared_memory=167936,
  ),
  'h100': _Gpu(
    'NVIDIA H100 80GB HBM3',
    flops=989e12,
    capability=9,
    cores=132,
    fpus=128,
    clock_ghz=1.98,
    memory=84942979072,
    bandwidth=3352320000000,
    l2_cache=52428800,
    shared_memory=233472,
  ),
  'h200': _Gpu(
    'NVIDIA H200 141GB HBM3e',
    flops=989e12,
    capability=9,
    cores=132,
    fpus=128,
    clock_ghz=1.98,
    memory=151397597184,
    bandwidth=4800000000000,
    l2_cache=52428800,
    shared_memory=233472,
  ),
  'b200': _Gpu(
    'NVIDIA B200',
    flops=2250e12,
    capability=10,
    cores=148,
    fpus=128,
    clock_ghz=1.965,
    memory=191514411008,
    bandwidth=7672320000000,
    l2_cache=132644864,
    shared_memory=233472,
  ),
}


def describe(name: str) -> Machine:
  """Returns the machine of a name, such as v5e:4x4, h100:8 or here.

  Raises:
    InputError: there is no such machine, or its compiler is not installed.
  """
  if name == HERE:
    devices = jax.devices()
    return Machine(name, _attached(devices[0]), devices)
  form = _NAME.fullmatch(name)
  slices, kind, chips = form.groups() if form else (None, name, None)
  if kind not in (*TPUS, *GPUS):
    raise unknown('the machine', kind, (*TPUS, *GPUS, HERE))
  if not chips:
    example = 'v5e:4x4' if kind in TPUS else 'h100:8'
    raise InputError(f'the machine {name} has no number of chips: {example}')
  if kind in TPUS:
    devices = _describe_tpus(kind, chips, slices)
    return Machine(name, TPUS[kind].chip, devices)
  hosts, _, each = chips.rpartition('x')
  if slices or 'x' in hosts:
    raise InputError(f'the machine {name} must be GPUS or HOSTSxGPUS: h100:2x8')
  devices = _describe_gpus(kind, hosts or '1', each)
  # Where there is no GPU to try tiles on, Triton fails at some products.
  options = {'xla_gpu_enable_triton_gemm': False}
  return Machine(name, GPUS[kind].chip, devices, options)


def _describe_tpus(kind: str, chips: str, slices: str | None) -> Sequence[Any]:
  """Returns described TPUs."""
  _check_installed('libtpu', 'tpu', kind)
  # No metadata server, and no other process, has a say in what is described.
  os.environ['TPU_SKIP_MDS_QUERY'] = '1'
  os.environ['ALLOW_MULTIPLE_LIBTPU_LOAD'] = '1'
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  options: dict[str, Any] = {}
  if TPUS[kind].parts:
    options['chip_config_name'] = TPUS[kind].parts
  if slices:
    options['num_slices'] = int(slices)
  if math.prod(map(int, chips.split('x'))) == 1:
    options['chips_per_host_bounds'] = (1, 1, 1)
  try:
    return topologies.get_topology_desc(
      platform='tpu', topology_name=f'{kind}:{chips}', **options
    ).devices
  except jax.errors.JaxRuntimeError as error:
    raise InputError(f'no TPU {kind}:{chips}: {error}') from error


def _describe_gpus(kind: str, hosts: str, each: str) -> Sequence[Any]:
  """Returns described GPUs."""
  _check_installed('jax_plugins.xla_cuda12', 'cuda12', kind)
  jax.devices()  # so that the plugin is known
  return topologies.get_topology_desc(
    platform='cuda',
    topology_name='',
    topology=f'1x{hosts}x{each}',
    target_config=GPUS[kind].target,
  ).devices


def _check_installed(module: str, extra: str, kind: str) -> None:
  """Raises InputError where a compiler is not installed."""
  try:
    found = importlib.util.find_spec(module)
  except ModuleNotFoundError:
    found = None
  if not found:
    raise InputError(
      f'the compiler for {kind} is not installed: '
      f'pip install "jax[{extra}]=={jax.__version__}"'
    )


def _attached(device: Any) -> Chip:
  """Returns what is known of an attached device."""
  known = {tpu.kind: tpu.chip for tpu in TPUS.values()}
  known |= {gpu.name: gpu.chip for gpu in GPUS.values()}
  chip = known.get(device.device_kind, Chip())
  memory = (device.memory_stats() or {}).get('bytes_limit', chip.memory)
  return chip._replace(memory=memory)
