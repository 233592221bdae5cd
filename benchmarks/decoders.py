"""Times the decoders: milliseconds an image, and the memory they take.

  python benchmarks/decoders.py

Random weights and images of --side pixels, --batch at a time, on whatever
device there is, compilation apart: the first decoder of configs/cifar10.py,
that of :vq+wide, which has as many parameters as both parts of :vq+swycc, and
the latter's U-Net, by solver and steps, with and without guidance. One
interleaved run of --rounds; medians, and medians of the ratios to the first
one within a round. Memory is what the compiled program asks for besides its
arguments, as XLA says. Prints a table in Markdown, and keeps it with --json.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags
from record import Record

sys.path.append(str(Path(__file__).resolve().parents[1]))
from configs import cifar10
from lasers_jax.decoders import Draw
from lasers_jax.experiment import settings

_SIDE = flags.DEFINE_integer('side', 32, 'Side of an image in pixels.')
_BATCH = flags.DEFINE_integer('batch', 32, 'Images at a time.')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Rounds of the interleaved run.')
_JSON = flags.DEFINE_string('json', '', 'File of the results.')

STEPS = (1, 2, 5, 10, 20, 50)
ROWS: dict[str, dict | None] = {
  'first decoder': None,
  'first decoder, wide': None,
  **{f'dpmpp_2m, {n} steps': {'steps': n} for n in STEPS},
  'ddim, 10 steps': {'steps': 10, 'solver': 'ddim'},
  'heun, 10 steps': {'steps': 10, 'solver': 'heun'},
  'dpmpp_2m, 10 steps, guided': {'steps': 10, 'guidance': 2.0},
}
_ROWS = flags.DEFINE_integer('rows', len(ROWS), 'Rows to measure.')


def build(name: str, fields: dict | None) -> tuple[Callable[[], None], float]:
  """Compiles a decoder of latents; returns its call, and its memory in MiB."""
  plain = 'vq+wide' if 'wide' in name else 'vq'
  config = cifar10.get_config(plain if fields is None else 'vq+swycc-mse')
  model = settings.from_config(config.to_dict()).model
  shape = _BATCH.value, _SIDE.value, _SIDE.value, 3
  images = jax.random.uniform(jax.random.key(0), shape)
  variables = model.init(jax.random.key(1), images[:1])
  quantized = model.apply(variables, images).latent.quantized
  decoding = model.decoder.Sampling(**(fields or {}))
  draw = Draw(jnp.arange(_BATCH.value))

  def run(variables, quantized):
    return model.apply(variables, quantized, draw, decoding, method='sample')

  compiled = jax.jit(run).lower(variables, quantized).compile()
  memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
  return lambda: jax.block_until_ready(compiled(variables, quantized)), memory


def main(_) -> None:
  record = Record(
    _JSON.value,
    __doc__,
    side=_SIDE.value,
    batch=_BATCH.value,
    rounds=_ROUNDS.value,
  )
  some = list(ROWS.items())[: _ROWS.value]
  rows = {name: build(name, fields) for name, fields in some}
  times = {name: [] for name in rows}
  for i in range(_ROUNDS.value + 1):
    for name, (call, _) in rows.items():
      start = time.perf_counter()
      call()
      if i:  # the first round warms up
        times[name].append(time.perf_counter() - start)
  first = times['first decoder']
  print(
    f'{_BATCH.value} images of {_SIDE.value}×{_SIDE.value} at a time, '
    f'{jax.devices()[0].device_kind}\n\n'
    '| decoder | ms an image | × the first | MiB |\n|---|---|---|---|'
  )
  for name, (_, memory) in rows.items():
    each = 1e3 * statistics.median(times[name]) / _BATCH.value
    ratios = [b / a for a, b in zip(first, times[name], strict=True)]
    ratio = statistics.median(ratios)
    print(f'| {name} | {each:.2f} | {ratio:.1f} | {memory:.0f} |')
    record.add(name, ms=each, ratio=ratio, mib=memory)
  record.finish()


if __name__ == '__main__':
  app.run(main)
