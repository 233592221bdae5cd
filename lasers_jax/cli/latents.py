"""Writes the latents or codes of images into shards, for others to train on.

  lasers-jax latents --model=runs/photos --data=folder:/my/images /my/latents
  lasers-jax latents --model=photos-model --content=codes gs://bucket/codes

The model is a workdir, an exported model or a tokenizer of another project; the
images are those of --data, the `data.name` of a config, or else its own. Each
split becomes a folder of shards, safetensors or array_record, with labels and
names, and stats.json, which is written last: mean and std of each channel, the
count of images and the hash of the model. The same command goes on where it was
stopped. In PyTorch:

  arrays = safetensors.torch.load_file('/my/latents/train/00000.safetensors')
  x = (arrays['latents'] - mean) / std      # [n, H, W, D]: channels are last
"""

import os

from absl import flags

from lasers_jax.cli import program
from lasers_jax.cli.command_line import Model, Number
from lasers_jax.core.ranges import Whole, declared
from lasers_jax.errors import InputError
from lasers_jax.experiment.latent_shards import (
  CONTENTS,
  KINDS,
  Shards,
  write_latents,
)
from lasers_jax.experiment.loading import load


def define_flags() -> None:
  flags.DEFINE(
    Model(),
    'model',
    None,
    'Workdir, exported model, or a tokenizer of another project.',
  )
  flags.DEFINE(
    Number(Whole),
    'checkpoint',
    None,
    'Step of the checkpoint; the newest if unset.',
  )
  flags.DEFINE_string(
    'data', '', 'Images, as data.name of a config; those of the model if unset.'
  )
  flags.DEFINE_list(
    'options', [], 'Of --data, NAME=VALUE, as data.options of a config.'
  )
  flags.DEFINE_list(
    'splits',
    None,
    'Splits to write; if unset train, and validation and test where they are.',
  )
  flags.DEFINE_enum('content', Shards.content, CONTENTS, 'What is written.')
  flags.DEFINE_enum('kind', Shards.kind, KINDS, 'Of the files.')
  flags.DEFINE(
    Number(declared(Shards, 'side')),
    'side',
    Shards.side,
    'Of the square images; that of the training of the model if unset.',
  )
  flags.DEFINE(
    Number(declared(Shards, 'per_shard')),
    'per_shard',
    Shards.per_shard,
    'Images of a shard.',
  )


def main(words: list[str]) -> None:
  given = flags.FLAGS
  if len(words) != 1 or not given.model:
    raise InputError(
      'lasers-jax latents --model=WORKDIR [--data=NAME] TARGET: a model and a '
      'folder'
    )
  program.set_up_jax()
  shards = Shards(given.content, given.kind, given.side, given.per_shard)
  options = dict(word.partition('=')[::2] for word in given.options)
  model = load(given.model, given.checkpoint)
  written = write_latents(
    model, words[0], shards, given.data, given.splits, options
  )
  for split, stats in written.items():
    print(
      f'{os.path.join(words[0], split)}: {stats["count"]:,} images, '
      f'{len(stats["counts"]):,} shards, weights {stats["weights"]}'
    )


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, words=True, resumes=True)
