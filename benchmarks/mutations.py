"""Reads files that were damaged on purpose by a codec, and counts outcomes.

  python benchmarks/mutations.py --n=20000

Small models with random weights code random latents, with a context model and
without; their files are cut, flipped, spliced, lengthened, given other sizes,
versions and hashes, half of the time with a checksum that fits. Each must be
read as codes, or refused with one line, in short time and little memory. Prints
the outcomes and their counts, the longest time, and the most memory of one
reading (as Python and NumPy count it).
"""

import collections
import re
import sys
import time
import tracemalloc
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lasers_jax.bottlenecks import VQ, Entropy, Lasers, Residual
from lasers_jax.codec import Codec, container, fit_tables
from lasers_jax.errors import InputError

_N = flags.DEFINE_integer('n', 20_000, 'Damaged files to read.')
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the damage.')

F, SITES = 4, 16
BOTTLENECKS = {
  'lasers': Lasers(D=8, K=64, S=3, coefficient_bits=4),
  'lasers, rounded': Lasers(
    D=8, K=64, S=3, coefficient_bits=2, pursuit='rounded'
  ),
  'vq': VQ(D=8, K=256),
  'entropy': Entropy(D=8, limit=15, step=0.3),
  'residual': Residual(D=8, depth=3, inner=VQ(D=8, K=16)),
}


def make(bottleneck, context: bool) -> tuple[Codec, bytes]:
  """Builds a codec, with a context model or without, and a file of it."""
  z = jax.random.normal(jax.random.key(0), (4, SITES, SITES, bottleneck.D))
  variables = bottleneck.init(jax.random.key(1), z, train=False)
  codes = bottleneck.apply(variables, z, method='encode')
  maps = [
    (jax.tree.map(lambda x, i=i: np.asarray(x[i]), codes), (SITES, SITES))
    for i in range(len(z))
  ]
  tables = fit_tables(bottleneck, maps, context)
  codec = Codec(bottleneck, F, F, tables, b'abcd')
  return codec, codec.write(maps[0][0], F * SITES, F * SITES)


def damage(data: bytes, version: int, rng: np.random.Generator) -> bytes:
  """Changes a file in one to four ways; a head that fits has the version."""
  changed = bytearray(data)
  for _ in range(rng.integers(1, 5)):
    at = int(rng.integers(len(changed) + 1))
    some = bytes(rng.integers(0, 256, rng.integers(1, 9), dtype=np.uint8))
    match rng.integers(5):
      case 0:
        changed = changed[:at]
      case 1:
        changed[at : at + len(some)] = some
      case 2:
        changed[at:at] = some
      case 3:
        del changed[at : at + len(some)]
      case 4 if at < len(changed):
        changed[at] ^= 1 << int(rng.integers(8))
  if rng.random() < 0.5:
    return repair_head(bytes(changed), version, rng)
  return bytes(changed)


def repair_head(data: bytes, version: int, rng: np.random.Generator) -> bytes:
  """Gives the rest of a file a head that fits, and often other sides."""
  body = data[container.HEAD_BYTES :]
  if rng.random() < 0.5:
    largest = 21 if rng.random() < 0.5 else 7
    sides = (int(2 ** rng.uniform(0, largest)) for _ in range(2))
    body = b''.join(container.pack_side(x) for x in sides) + body[2:]
  return container.head(b'abcd', body, version) + body


def main(_) -> None:
  rng = np.random.default_rng(_SEED.value)
  made = [make(x, y) for x in BOTTLENECKS.values() for y in (False, True)]
  outcomes: collections.Counter = collections.Counter()
  slowest, largest = 0.0, 0
  tracemalloc.start()
  for i in range(_N.value):
    codec, data = made[i % len(made)]
    changed = damage(data, codec.version, rng)
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.perf_counter()
    try:
      codec.read(changed)
      outcome = 'read'
    except InputError as error:
      assert '\n' not in str(error)
      outcome = re.sub(r'\d+', '#', str(error))
    slowest = max(slowest, time.perf_counter() - start)
    largest = max(largest, tracemalloc.get_traced_memory()[1] - before)
    outcomes[outcome] += 1
  for outcome, count in outcomes.most_common():
    print(f'{count:7d} {outcome}')
  print(f'at most {1e3 * slowest:.0f} ms and {largest / 2**10:.0f} KiB')


if __name__ == '__main__':
  app.run(main)
