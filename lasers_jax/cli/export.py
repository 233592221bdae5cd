"""Writes a trained model into a folder that needs no checkpoint and no data.

  lasers-jax export --workdir=runs/photos --output=photos-model

The folder has the config, the averaged weights (safetensors), statistics of
latents and a model card; also results and tables of the codec, where the
workdir has them. lasers_jax.load('photos-model') reads it, and the other
programs take it in place of a workdir. --prior=WORKDIR exports a prior of maps
instead of a model. --format writes for programs that are not of this project:

  diffusers  a folder that the classes of diffusers read
  onnx       graphs of ONNX that encode and decode; PyTorch makes them
  stablehlo  programs of jax.export that encode and decode
  torch      a module of PyTorch in one file, and its weights
"""

from typing import Any

from absl import flags

from lasers_jax import inference
from lasers_jax.cli import command_line, program
from lasers_jax.cli.command_line import Number, Path
from lasers_jax.core.ranges import Whole
from lasers_jax.errors import InputError
from lasers_jax.experiment.formats import FORMATS
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.priors.model import load_prior


def define_flags() -> None:
  command_line.define_model()
  command_line.define_prior()
  whole = Number(Whole)
  flags.DEFINE(
    whole, 'checkpoint', None, 'Step of the checkpoint; the newest if unset.'
  )
  flags.DEFINE(
    Path(), 'output', None, 'Folder to write; an earlier export is replaced.'
  )
  flags.DEFINE_enum(
    'format',
    None,
    list(FORMATS),
    'Format for other programs; the folder must be new.',
  )
  flags.DEFINE(
    whole, 'side', None, 'Of the images that --format=stablehlo encodes.'
  )


def main() -> None:
  given = flags.FLAGS
  path = given.prior or given.model or program.WORKDIR.value
  if not path or not given.output:
    raise InputError(
      '--workdir=FOLDER, or --model or --prior, and --output are needed'
    )
  program.set_up_jax()
  if given.prior:
    if given.format:
      raise InputError(
        f'--format={given.format} is of models: leave out --prior'
      )
    found: Any = load_prior(path, given.checkpoint)
    found.export(given.output)
  else:
    found = load(path, given.checkpoint)
    found.export(given.output, given.format, side=given.side)
  count = sum(inference.count_parameters(found.variables).values())
  print(
    f'{given.output}: step {found.step}, {count:,} parameters, '
    f'weights {found.weights}'
  )


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main)
