"""Packs images into shards that training reads at random.

  lasers-jax pack folder:/my/images /my/records --side=256
  lasers-jax pack 'tar:/my/shards/*.tar' gs://bucket/records --side=256
  lasers-jax pack 'parquet:/my/data/*.parquet' /my/records
  lasers-jax pack cifar10 /my/records

The source is the `data.name` of a config. Each split becomes a folder of
array_record shards with labels and names, and a manifest that is written last:
the same command goes on where it was stopped. Without --side the bytes of all
images stay as they are. Images that cannot be decoded are left out and named in
the manifest. Then: --config.data.name=records:/my/records
"""

import os

import jax
from absl import flags

from lasers_jax.cli import program
from lasers_jax.cli.command_line import Number
from lasers_jax.core.ranges import Whole, declared
from lasers_jax.core.storage import absolute
from lasers_jax.data.packing import pack_splits
from lasers_jax.data.shards import Packing
from lasers_jax.errors import InputError


def define_flags() -> None:
  fields = ('side', 'quality', 'per_shard')
  kinds = {name: Number(declared(Packing, name)) for name in fields}
  flags.DEFINE(
    kinds['side'],
    'side',
    None,
    'Shorter side to which larger images are reduced; unset keeps all bytes.',
  )
  flags.DEFINE_enum(
    'encoding', Packing.encoding, ['jpeg', 'png'], 'Of images that are reduced.'
  )
  flags.DEFINE(
    kinds['quality'],
    'quality',
    Packing.quality,
    'Of JPEG, without subsampling.',
  )
  flags.DEFINE(
    kinds['per_shard'],
    'per_shard',
    Packing.per_shard,
    'Images of a shard.',
  )
  flags.DEFINE_list(
    'splits',
    None,
    'Splits to pack; if unset train, and validation and test where they are.',
  )
  flags.DEFINE_list(
    'options', [], 'Of the source, NAME=VALUE, as data.options of a config.'
  )
  flags.DEFINE(
    Number(Whole), 'workers', os.cpu_count(), 'Processes; 0 packs in this one.'
  )


def main(words: list[str]) -> None:
  given = flags.FLAGS
  if len(words) != 2:
    raise InputError('lasers-jax pack SOURCE TARGET: a source and a folder')
  source, target = words
  jax.config.update('jax_platforms', 'cpu')  # accelerators stay free
  options = dict(word.partition('=')[::2] for word in given.options)
  packing = Packing(given.side, given.encoding, given.quality, given.per_shard)
  target = absolute(target)
  packed = pack_splits(
    source, target, packing, given.splits, given.workers, options
  )
  for split, manifest in packed.items():
    print(
      f'{os.path.join(target, split)}: {sum(manifest.counts):,} images, '
      f'{sum(manifest.sizes):,} bytes, {len(manifest.counts):,} shards, '
      f'{manifest.left_out:,} left out'
    )


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, words=True, resumes=True)
