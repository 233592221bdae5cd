import dataclasses

from lasers_jax.experiment.dry_run import Estimate
from lasers_jax.report import estimates

TPU = Estimate(
  machine='v5e:4x4',
  device='TPU v5',
  devices=16,
  hosts=4,
  mesh={'data': 8, 'fsdp': 2},
  batch_size=128,
  parameters=1_234,
  parameter_bytes=2**20,
  state_bytes=2**30,
  memory=16 * 2**30,
  argument_bytes=2**30,
  temporary_bytes=3 * 2**30,
  total_bytes=4 * 2**30,
  flops=2e12,
  seconds_at_peak=0.01,
  seconds_by_cycles=0.04,
  seconds_of_branches=0.001,
  collectives={'all-reduce': {'count': 7, 'bytes': 3 * 2**20}},
  compile_seconds=61.4,
  compile_bytes=2**31,
)
GPU = dataclasses.replace(
  TPU,
  machine='h100:8',
  seconds_by_cycles=None,
  seconds_of_branches=None,
  collectives={},
)


def test_a_column_a_machine():
  assert estimates.table([TPU, GPU]).splitlines() == [
    '                   v5e:4x4                  h100:8',
    'devices            16 × TPU v5 on 4 hosts   16 × TPU v5 on 4 hosts',
    'mesh               data 8 × fsdp 2          data 8 × fsdp 2',
    'batch              128 (8 a device)         128 (8 a device)',
    'parameters         1,234 (1 MiB a device)   1,234 (1 MiB a device)',
    'state a device     1 GiB                    1 GiB',
    'arguments          1 GiB                    1 GiB',
    'temporaries        3 GiB                    3 GiB',
    'memory             4 GiB of 16 GiB (25%)    4 GiB of 16 GiB (25%)',
    'a device computes  2,000 GFLOP              2,000 GFLOP',
    'step at the peak   10 ms                    10 ms',
    'step by cycles     40 ms (25% of the peak)',
    'now and then       1 ms',
    'images a second    3,200                    at most 12,800',
    'collectives        7 all-reduce 3 MiB       none',
    'compiled in        61 s, 2 GiB              61 s, 2 GiB',
  ]


def test_what_no_machine_tells_has_no_line():
  lines = estimates.table([GPU]).splitlines()
  assert not [line for line in lines if line.startswith('step by cycles')]


def test_what_is_too_large():
  large = dataclasses.replace(TPU, total_bytes=20 * 2**30)
  assert '20 GiB of 16 GiB (125%, does not fit)' in estimates.table([large])
  assert estimates.failure(large) == (
    'the step does not fit on v5e:4x4: 20 GiB of 16 GiB a device; lower '
    '--config.batch_size, take more devices, or split the state: '
    '--config.mesh.fsdp'
  )
