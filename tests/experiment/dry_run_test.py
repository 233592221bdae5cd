"""The step of a run, compiled for machines at hand and for described ones."""

import json
import os
import subprocess
import sys
import types

import jax
import pytest

from lasers_jax.cli import dry_run as command
from lasers_jax.core import machines, sharding
from lasers_jax.errors import InputError
from lasers_jax.experiment import dry_run, loop, settings
from lasers_jax.report import estimates
from lasers_jax.training.objective import make_objective
from tests import tiny


@pytest.fixture(scope='module')
def config():
  """Of a run whose data set is nowhere."""
  return tiny.config('/no/such/folder', mesh__fsdp=2)


@pytest.fixture(scope='module')
def here(config):
  (estimate,) = dry_run.dry_run(config, ['here'])
  return estimate


def test_it_says_what_the_run_will_have(config, here):
  experiment = settings.from_config(config)
  objective, _ = make_objective(experiment.model, experiment.loss)
  mesh = sharding.make_mesh(fsdp=2)
  program = loop.build_program(experiment, objective, mesh)
  state = program.create(loop.put_images({'image': tiny.images(8)}, mesh))
  leaves = jax.tree.leaves(state)
  for i in 0, 7:
    shards = [x.addressable_shards[i].data for x in leaves]
    assert sum(x.nbytes for x in shards) == here.state_bytes
  image = 16 * 16 * 3  # of each device
  assert here.argument_bytes == pytest.approx(here.state_bytes + image, abs=512)
  assert here.mesh == {'data': 4, 'fsdp': 2, 'model': 1}
  assert here.devices == here.batch_size == 8
  sizes = [x.size for x in jax.tree.leaves(state.params)]
  assert here.parameters == sum(sizes)
  assert here.parameter_bytes < 4 * here.parameters


def test_it_says_what_the_step_computes(config, here):
  # More than the convolutions of the network forwards and three times that.
  assert 1e5 < here.flops < 1e8
  assert here.temporary_bytes > 0
  assert here.total_bytes > here.argument_bytes + here.temporary_bytes
  assert here.collectives['all-reduce']['bytes'] >= here.parameter_bytes
  assert here.collectives['all-gather']['count'] > 0
  assert here.fits
  assert here.seconds is None  # nothing is known of a CPU


@pytest.mark.parametrize(
  ('changes', 'names', 'said'),
  [
    ({}, ['heer'], "the machine is 'heer': did you mean here?"),
    ({'mesh__fsdp': 16}, ['here'], 'here: the mesh data=-1 × fsdp=16'),
    ({'batch_size': 6}, ['here'], 'here: batch_size=6 cannot be split 8 ways'),
    (
      {'evaluation__batch_size': 6},
      ['here'],
      'here: evaluation.batch_size=6 cannot be split 8 ways',
    ),
    ({'bottleneck__S': 17}, ['here'], 'S must be from 1 to K = 16'),
    ({'loss__weights': {'pixel': 1.0}}, ['here'], 'missing: commitment'),
  ],
)
def test_what_a_run_would_refuse_is_refused(changes, names, said):
  with pytest.raises(InputError) as error:
    dry_run.dry_run(tiny.config('/no/such/folder', **changes), names)
  assert said in str(error.value)
  assert '\n' not in str(error.value)


def test_a_step_that_is_too_large_is_said_on_one_line(
  config, monkeypatch, tmp_path, capsys
):
  chip = machines.Chip(flops=1e12, memory=2**17)
  monkeypatch.setattr(machines, '_attached', lambda device: chip)
  file = tmp_path / 'found.json'
  with pytest.raises(InputError) as error:
    command.estimate(lambda: dry_run.of_model(config), ['here'], str(file))
  (found,) = json.loads(file.read_text())
  size = f'{found["total_bytes"] / 2**20:.3g} MiB of 0.125 MiB a device'
  assert str(error.value) == (
    f'the step does not fit on here: {size}; lower --config.batch_size, take '
    'more devices, or split the state: --config.mesh.fsdp'
  )
  shown = capsys.readouterr().out
  assert 'does not fit' in shown
  assert found['seconds_at_peak'] == pytest.approx(found['flops'] / 1e12)


def test_a_compiler_that_gives_up_is_quoted(monkeypatch, config):
  words = (
    'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.1G of '
    '15.75G hbm. Exceeded hbm capacity by 4.4G.\n\nTotal hbm usage >= 20.1G:'
  )

  def compile_nothing(options):
    raise jax.errors.JaxRuntimeError(words)

  lowered = types.SimpleNamespace(compile=compile_nothing)
  monkeypatch.setattr(jax.stages.Traced, 'lower', lambda traced: lowered)
  (found,) = dry_run.dry_run(config, ['here'])
  assert not found.fits
  assert estimates.failure(found).startswith(
    'the step does not fit on here: Ran out of memory in memory space hbm; '
  )
  assert 'does not fit' in estimates.table([found])


# A process of its own: the compiler takes a gigabyte, and its settings stay.
COMPILE = """
import json, sys
import jax
jax.config.update('jax_platforms', 'cpu')
from lasers_jax.core import machines, programs
from lasers_jax.cli.configs import config
from lasers_jax.experiment import dry_run
from tests import tiny

machine = machines.describe('v5e:2x2')

def compile(found):
  task = dry_run.of_model(found)
  mesh = dry_run.arrange(task, machine)
  compiled = dry_run.trace(task, mesh).lower().compile()
  text = compiled.as_text()
  return {
    'collectives': [
      (x.kind, x.arrays, x.bytes, x.origin) for x in programs.collectives(text)
    ],
    'double': 'f64[' in text,
    'bytes': programs.memory(compiled).total,
    'cycles': programs.estimated_cycles(text)[0],
    'room': machine.chip.memory,
  }

whole = config('cifar10:lasers', batch_size=48, evaluation__batch_size=48)
split = tiny.config('nowhere', mesh__fsdp=2, network__channels=128)

def turns(n):
  x = jax.ShapeDtypeStruct((1024, 1024), jax.numpy.float32)
  mesh = jax.sharding.Mesh(machine.devices[:1], 'x')
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  f = lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=n)[0]
  compiled = jax.jit(f, in_shardings=place).lower(x).compile()
  return programs.estimated_cycles(compiled.as_text())[0]

loops = turns(100), turns(200)
json.dump([compile(whole), compile(split), loops], sys.stdout)
"""


@pytest.fixture(scope='module')
def compiled():
  """What TPUs would run: CIFAR-10 of 48 images, and a run that is split."""
  pytest.importorskip('libtpu')
  names = 'JAX_DISABLE_MOST_OPTIMIZATIONS', 'XLA_FLAGS'  # of the tests
  env = {k: v for k, v in os.environ.items() if k not in names}
  done = subprocess.run(
    [sys.executable, '-c', COMPILE],
    env=env,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.slow
def test_the_step_for_tpus_gathers_nothing_large(compiled):
  whole, *_ = compiled
  assert not whole['double']
  assert 0 < whole['bytes'] < whole['room']
  assert whole['cycles'] > 0
  gathered = [x for x in whole['collectives'] if x[0] != 'all-reduce']
  assert {x[0] for x in gathered} <= {'all-gather'}, gathered
  assert all(size <= 2**16 for _, _, size, _ in gathered), gathered
  # Of 48 images on 4 devices: those, and the sites of 8 × 8 of each.
  batches = {48, 12, 48 * 64, 12 * 64}
  for kind, arrays, _, origin in whole['collectives']:
    for _, shape in arrays:
      # A revival looks for the sites of the largest errors among all.
      if 'revive/top_k' not in origin:
        assert not batches & set(shape), (kind, shape, origin)


@pytest.mark.slow
def test_gradients_on_tpus_go_where_their_parameters_are(compiled):
  _, split, _ = compiled
  kinds = {x[0] for x in split['collectives']}
  assert 'reduce-scatter' in kinds
  summed = [
    shape
    for kind, arrays, _, _ in split['collectives']
    for _, shape in arrays
    if kind == 'all-reduce'
  ]
  # A kernel of 3 × 3 × 128 × 128 is never summed whole.
  assert [3, 3, 128, 128] not in summed
  assert [2, 2, 128, 2, 2, 128] not in summed


@pytest.mark.slow
def test_cycles_on_tpus_grow_with_the_turns_of_a_loop(compiled):
  *_, (once, twice) = compiled
  # Of 100 products of 2 · 1024³, at 4 · 2 · 128² in a cycle.
  assert twice - once > 100 * 2 * 1024**3 / (4 * 2 * 128**2)
  assert twice == pytest.approx(2 * once, rel=0.02)
