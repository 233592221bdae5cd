"""Machines by name, and what is said where there is none."""

import importlib.util

import jax
import pytest

from lasers_jax.core import machines
from lasers_jax.errors import InputError


@pytest.mark.parametrize(
  ('name', 'devices', 'hosts'),
  [
    ('v5e:1x1', 1, 1),
    ('v5e:16x16', 256, 64),
    ('v4:2x2x1', 4, 1),
    ('v5p:4x4x4', 64, 16),
    ('v6e:4x4', 16, 4),
    ('tpu7x:2x2x1', 8, 1),
    ('2*v5e:2x2', 8, 2),
  ],
)
def test_tpus_are_described(described, name, devices, hosts):
  machine = machines.describe(name)
  kind = name.split('*')[-1].split(':')[0]
  assert len(machine.devices) == devices
  assert len({d.process_index for d in machine.devices}) == hosts
  assert {d.device_kind for d in machine.devices} == {machines.TPUS[kind].kind}
  assert machine.chip == machines.TPUS[kind].chip
  slices = int(name.split('*')[0]) if '*' in name else 1
  assert len({getattr(d, 'slice_index', 0) for d in machine.devices}) == slices


def test_a_tpu_computes_at_its_peak_in_each_cycle():
  v5e = machines.TPUS['v5e'].chip
  assert v5e.clock == pytest.approx(1.5e9, rel=0.01)
  assert v5e.memory == 15.75 * 2**30


def test_gpus_are_described():
  if not importlib.util.find_spec('jax_plugins'):
    pytest.skip("JAX's plugin for CUDA is not installed")
  machine = machines.describe('h100:2x8')
  assert len(machine.devices) == 16
  assert len({d.process_index for d in machine.devices}) == 2
  assert machine.devices[0].device_kind == machines.GPUS['h100'].name


def test_a_gpu_has_the_share_of_memory_that_jax_takes():
  h100 = machines.GPUS['h100']
  assert h100.chip.memory == pytest.approx(0.75 * h100.memory, abs=1)
  assert 'device_memory_size: 84942979072\n' in h100.target
  assert h100.target.count('{') == h100.target.count('}')


def test_the_devices_at_hand():
  machine = machines.describe('here')
  assert machine.devices == jax.devices()
  assert machine.chip == machines.Chip()  # of a CPU nothing is known


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('v5:4x4', "the machine is 'v5': did you mean v5e?"),
    ('h1000:8', "the machine is 'h1000': did you mean h100?"),
    ('hre', "the machine is 'hre': did you mean here?"),
    ('v5e', 'the machine v5e has no number of chips: v5e:4x4'),
    ('h100', 'the machine h100 has no number of chips: h100:8'),
    ('h100:1x2x4', 'h100:1x2x4 must be GPUS or HOSTSxGPUS: h100:2x8'),
    ('2*h100:8', r'2\*h100:8 must be GPUS or HOSTSxGPUS: h100:2x8'),
    ('v5e:4x', "the machine is 'v5e:4x': "),
    ('', "the machine is ''"),
  ],
)
def test_names_that_are_no_machine(name, said):
  with pytest.raises(InputError, match=said) as error:
    machines.describe(name)
  assert '\n' not in str(error.value)


def test_chips_that_no_slice_has(described):
  with pytest.raises(InputError, match='no TPU v5e:3x5: '):
    machines.describe('v5e:3x5')


@pytest.mark.parametrize(
  ('name', 'extra'), [('v5e:2x2', 'tpu'), ('h100:8', 'cuda12')]
)
def test_a_compiler_that_is_not_installed(monkeypatch, name, extra):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  said = rf'not installed: pip install "jax\[{extra}\]=={jax.__version__}"'
  with pytest.raises(InputError, match=said):
    machines.describe(name)
