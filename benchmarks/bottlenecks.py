"""Times each bottleneck, beside the same one of vector-quantize-pytorch.

  python benchmarks/bottlenecks.py

Random latents, float32, on the CPU with all cores (--platform= takes the
device that JAX finds, and PyTorch its card), compilation apart. The
forward pass is that of training: codes, losses and new statistics of the
codebook. Forward and backward adds the gradients to z and parameters of the
losses and of the sum of c q, where c stands for the decoder's gradient; and
revival, for what revives codes at each step. Settings and weights of losses
are the defaults, but S = 4 for lasers, and levels or bits as K asks. The peer
takes part where it is installed and has the system, with the same settings.

Each row has processes of its own, one at a time. Two measure memory: how far
forward and backward, on its second call, raises what is resident; on another
device than a CPU, what the program needs besides its arguments, and of PyTorch
the most that was allocated. One measures time, ours and the peer's in turns; a
ratio is the median of the ratios within a round. What has run for --patience
seconds sits out its further rounds. What needs more memory than there is, or
more than --limit seconds to compile and run twice, is a dash with its reason.
Needs Linux. Prints tables, and keeps them with --json, where rows are resumed.
"""

import ctypes
import gc
import importlib.util
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from record import Record, device_line, synchronize_torch, torch_device

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lasers_jax.bottlenecks import BOTTLENECKS, start
from lasers_jax.experiment.presets.bottlenecks import choose
from lasers_jax.experiment.settings import build_model

LABELS = ['lasers-rounded', *BOTTLENECKS, 'vq-cosine', 'vq-rotation']
PEER = 'vector_quantize_pytorch'
PEER_HAS = ('vq', 'simvq', 'fsq', 'lfq', 'bsq', 'residual', 'product')
PASSES = ('forward', 'both')
BOTH = ['params', 'codebook']  # what a module may write
SIDE = 32  # of an image, in sites
CORES = len(os.sched_getaffinity(0))
SPARE = 2**29  # bytes left to the rest of the machine

_NAMES = flags.DEFINE_list('names', LABELS, 'Rows to measure.')
_SIZES = flags.DEFINE_list('sizes', '1024,65536', 'Codes K, one table each.')
_IMAGES = flags.DEFINE_integer('images', 16, f'Images of {SIDE}×{SIDE} sites.')
_WIDTH = flags.DEFINE_integer('width', 64, 'Width D of a latent.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds of the interleaved run.')
_PATIENCE = flags.DEFINE_float('patience', 12, 'Seconds of a pass, at most.')
_LIMIT = flags.DEFINE_float('limit', 240, 'Seconds of a memory job.')
_PLATFORM = flags.DEFINE_string('platform', 'cpu', 'Of JAX; empty: any.')
_JSON = flags.DEFINE_string('json', '', 'File of the results.')
_JOB = flags.DEFINE_list('job', [], 'For internal use: the job of a process.')


class Pass(NamedTuple):
  """A pass to time; `memory` is the MiB that it needs, where that is known."""

  run: Callable[[], None]
  memory: Callable[[], float]


Passes = dict[str, Pass]


def settings(label: str, k: int):
  """Returns the sections `bottleneck` and `loss.weights` of a row."""
  section, weights = choose(label.split('-')[0], k)
  bits = k.bit_length() - 1
  # About K codes, as in table 1 of the paper.
  levels = (8, 5, 5, 5) if k < 2**16 else (8, 8, 8, 5, 5, 5)
  fields = {
    'lasers': {'S': 4},
    'lasers-rounded': {'S': 4, 'pursuit': 'rounded', 'coefficient_bits': 2},
    'fsq': {'levels': levels},
    'lfq': {'bits': bits},
    'bsq': {'bits': bits},
    'vq-cosine': {'distance': 'cosine'},
    'vq-rotation': {'gradient': 'rotation'},
  }
  section.update(fields.get(label, {}))
  return section, weights


def latents(seed: int) -> np.ndarray:
  """Draws latents [images, SIDE, SIDE, D]."""
  shape = _IMAGES.value, SIDE, SIDE, _WIDTH.value
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def ours(label: str, k: int) -> Passes:
  """Compiles our passes; the codebook goes from call to call, as in a run."""
  section, weights = settings(label, k)
  network = {'name': 'vqvae', 'D': _WIDTH.value}
  module = build_model(network, section).bottleneck
  z, c = jnp.asarray(latents(0)), jnp.asarray(latents(1))
  key = jax.random.key(0)
  variables = {'params': {}, 'codebook': {}, **start(module, z, key)}
  inputs = variables['params'], z, c, key

  def build(program):
    state = jax.tree.map(jnp.copy, variables['codebook'])
    lowered = jax.jit(program, donate_argnums=0).lower(state, *inputs)
    compiled = lowered.compile()

    def run() -> None:
      nonlocal state
      state, results = compiled(state, *inputs)
      jax.block_until_ready((state, results))

    analysis = compiled.memory_analysis()
    return Pass(run, lambda: analysis.temp_size_in_bytes / 2**20)

  programs = make_programs(module, weights)
  return dict(zip(PASSES, map(build, programs), strict=True))


def make_programs(module, weights) -> tuple[Callable, Callable]:
  """Builds the passes: (codebook, params, z, c, key) to codebook, results."""

  def apply(params, codebook, key, *arguments, **options):
    variables = {'params': params, 'codebook': codebook}
    options['rngs'] = {'bottleneck': key}
    return module.apply(variables, *arguments, **options)

  def forward(codebook, params, z, c, key):
    latent, new = apply(params, codebook, key, z, True, mutable=['codebook'])
    loss = sum(weights[name] * x for name, x in latent.losses.items())
    # Training has no use for continuous codes, some of which are [N, K].
    codes = latent.codes if module.symbols else None
    results = latent.quantized, loss, codes, latent.stats
    return new.get('codebook', codebook), results

  def both(codebook, params, z, c, key):
    def total(params, z):
      new, results = forward(codebook, params, z, c, key)
      return jnp.sum(results[0] * c) + results[1], (new, results)

    found = jax.grad(total, (0, 1), has_aux=True)(params, z)
    (gradients, (new, results)), changed = found, {}
    if module.revive_every == 1:
      _, changed = apply(params, new, key, z, method='revive', mutable=BOTH)
    return changed.get('codebook', new), (gradients, results, changed)

  return forward, both


def theirs(label: str, k: int) -> Passes:
  """Builds the peer's passes."""
  import torch

  # Else a part of the peer loads the compiler of torch, for seconds.
  torch.compiler.allow_in_graph = lambda function: function
  torch.set_num_threads(CORES)
  torch.manual_seed(0)
  section, weights = settings(label, k)
  device = torch_device()
  module, options = their_module(section, weights).to(device), {}
  if 'temperature' in section:
    options['inv_temperature'] = 1 / section['temperature']
  z, c = (torch.from_numpy(latents(i)).flatten(1, 2).to(device) for i in (0, 1))
  z.requires_grad_()

  def forward() -> None:
    with torch.no_grad():
      module(z, **options)
    synchronize_torch()

  def both() -> None:
    quantized, _, *losses = module(z, **options)
    loss = sum(x.mean() for x in losses)  # of a residual one, each level's
    (torch.sum(quantized * c) + loss).backward()
    z.grad = None
    module.zero_grad(set_to_none=True)
    synchronize_torch()

  def memory() -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both()
    return (torch.cuda.max_memory_allocated() - before) / 2**20

  passes = (Pass(run, memory) for run in (forward, both))
  return dict(zip(PASSES, passes, strict=True))


def their_module(section, weights):
  """Builds the peer's module with the same settings."""
  import vector_quantize_pytorch as peer

  d, name = _WIDTH.value, section['name']
  if name == 'fsq':
    return peer.FSQ(list(section['levels']), dim=d)
  if name in ('lfq', 'bsq'):
    return peer.LFQ(
      dim=d,
      codebook_size=2 ** section['bits'],
      spherical=name == 'bsq',
      diversity_gamma=section['gamma'],
      entropy_loss_weight=weights['entropy'],
      commitment_loss_weight=weights['commitment'],
    )
  book = section.get('inner', section)
  fields = {'dim': d, 'codebook_size': book['K'], 'rotation_trick': False}
  fields['commitment_weight'] = weights['commitment']
  if name == 'simvq':
    fields['commitment_weight'] = weights['codebook']
    ratio = weights['commitment'] / weights['codebook']
    return peer.SimVQ(**fields, input_to_quantize_commit_loss_weight=ratio)
  fields['rotation_trick'] = book['gradient'] == 'rotation'
  fields['use_cosine_sim'] = book['distance'] == 'cosine'
  fields.update(
    decay=book['decay'], kmeans_init=False, threshold_ema_dead_code=0
  )
  if name == 'residual':
    return peer.ResidualVQ(num_quantizers=section['depth'], **fields)
  if name == 'product':
    groups = section['groups']
    slices = {'heads': groups, 'codebook_dim': d // groups}
    fields.update(slices, separate_codebook_per_head=True)
  return peer.VectorQuantize(**fields)


BUILDERS = {'ours': ours, 'peer': theirs}


def bytes_of(field: str, file: str) -> int:
  """Reads a field of a file of /proc that counts kilobytes."""
  text = Path('/proc', file).read_text(encoding='utf-8')
  return 1024 * int(re.search(rf'{field}:\s+(\d+) kB', text)[1])


def peak_memory(label: str, k: int, side: str) -> float:
  """Measures the MiB that forward and backward add to those before."""
  run, memory = BUILDERS[side](label, k)['both']
  if jax.default_backend() != 'cpu':
    run()
    return memory()
  run()  # what the first call loads is not of the others
  gc.collect()
  ctypes.CDLL('libc.so.6').malloc_trim(0)
  # ru_maxrss would count compilation too, and what the parent once had.
  Path('/proc/self/clear_refs').write_text('5', encoding='utf-8')
  before = bytes_of('VmRSS', 'self/status')
  run()
  return (bytes_of('VmHWM', 'self/status') - before) / 2**20


def seconds(function: Callable[[], None], minimum: float) -> float:
  """Times calls for `minimum` seconds, at least one, and returns the mean."""
  calls, start = 0, time.perf_counter()
  while not calls or time.perf_counter() - start < minimum:
    function()
    calls += 1
  return (time.perf_counter() - start) / calls


def interleaved(label: str, k: int, *sides: str) -> dict[str, list[float]]:
  """Times the passes of a row in turns: seconds of the rounds of each."""
  passes = {side: BUILDERS[side](label, k) for side in sides}
  methods = {f'{s} {p}': passes[s][p].run for p in PASSES for s in sides}
  times = {name: [] for name in methods}
  spent = dict.fromkeys(methods, 0.0)
  for _ in range(_ROUNDS.value):
    for name, method in methods.items():
      if spent[name] < _PATIENCE.value:
        start = time.perf_counter()
        time.sleep(0.02)  # threads of the one before spin for a while
        once = seconds(method, 0)  # caches forget while others run
        times[name].append(once if once > 1 else seconds(method, 0.1))
        spent[name] += time.perf_counter() - start
  return times


def device(*_) -> str:
  """Returns the device of a job: a TPU belongs to one process at a time."""
  return device_line()


JOBS = {'memory': peak_memory, 'time': interleaved, 'device': device}


def do(kind: str, label: str, k: str, *sides: str) -> None:
  """Does the job of a process; prints its result, or why it fails."""
  if _PLATFORM.value:
    jax.config.update('jax_platforms', _PLATFORM.value)
  most = bytes_of('MemAvailable', 'meminfo') - SPARE
  if jax.default_backend() == 'cpu':  # a card's driver maps more than there is
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
  job = JOBS[kind]
  try:
    found = {'result': job(label, int(k), *sides)}
  except (MemoryError, RuntimeError) as error:
    reason = str(error).strip().split('\n')[0][:100]
    if re.search('memory|alloc', reason, re.IGNORECASE):
      reason = f'needs more memory than the {most / 2**30:.1f} GiB there are'
    found = {'failure': reason}
  print(json.dumps(found))


def process(failures: list[str], *job):
  """Does a job in a new process; adds a line to `failures` where it fails."""
  command = [sys.executable, *sys.argv, f'--job={",".join(map(str, job))}']
  limit = _LIMIT.value if job[0] == 'memory' else None
  try:
    output = subprocess.check_output(command, timeout=limit)
    found = json.loads(output.splitlines()[-1])
  except subprocess.TimeoutExpired:
    found = {'failure': f'takes longer than {limit:.0f} s'}
  except subprocess.CalledProcessError as error:
    found = {'failure': f'its process ended with code {error.returncode}'}
  if 'failure' in found:
    failures.append(f'- {", ".join(map(str, job))}: {found["failure"]}')
  return found.get('result')


def measure(label: str, k: int) -> dict:
  """Measures a row: MiB, seconds of the rounds, and failures."""
  failures = []
  has = label.split('-')[0] in PEER_HAS and importlib.util.find_spec(PEER)
  sides = BUILDERS if has else ['ours']
  memory = {x: process(failures, 'memory', label, k, x) for x in sides}
  alive = [side for side, x in memory.items() if x is not None]
  times = (alive and process(failures, 'time', label, k, *alive)) or {}
  return {'memory': memory, 'seconds': times, 'failures': failures}


def number(x: float | None, digits: int = 1) -> str:
  return '–' if x is None else f'{x:.{digits if x < 100 else 0}f}'


def cells(memory: dict, times: dict) -> list[str]:
  """Returns times and memory of both sides, and the ratios of times."""
  found = []
  for side in BUILDERS:
    for name in PASSES:
      each = times.get(f'{side} {name}')
      found.append(number(each and 1e3 * statistics.median(each)))
    found.append(number(memory.get(side), 0))
  for name in PASSES:
    pair = [times.get(f'{side} {name}', []) for side in BUILDERS]
    ratios = [b / a for a, b in zip(*pair, strict=False)]
    found.append(number(statistics.median(ratios) if ratios else None, 2))
  return found


def print_row(row: list[str]) -> None:
  print('| ' + ' | '.join(row) + ' |', flush=True)


def main(_) -> None:
  if _JOB.value:
    return do(*_JOB.value)
  n, d = _IMAGES.value * SIDE**2, _WIDTH.value
  record = Record(
    _JSON.value,
    __doc__,
    process([], 'device', '', 0),
    cores=CORES,
    n=n,
    d=d,
    rounds=_ROUNDS.value,
  )
  print(f'{CORES} cores, N = {n}, D = {d}, {_ROUNDS.value} rounds')
  columns = 'fwd, ms', 'fwd + bwd, ms', 'MiB'
  header = [f'{side}: {column}' for side in BUILDERS for column in columns]
  header = ['bottleneck', *header, 'peer / ours, fwd', 'peer / ours, both']
  for k in map(int, _SIZES.value):
    print(f'\nK = {k}\n')
    print_row(header)
    print_row(['---'] * len(header))
    failures = []
    for label in _NAMES.value:
      name = f'{label}, K = {k}'
      if name not in record:
        record.add(name, **measure(label, k))
      row = record.rows[name]
      print_row([label, *cells(row['memory'], row['seconds'])])
      failures += row['failures']
    print('', *failures, sep='\n')
  record.finish()


if __name__ == '__main__':
  app.run(main)
