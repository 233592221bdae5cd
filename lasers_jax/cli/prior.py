"""Trains a prior over the codes or latents of a trained model, or resumes.

  lasers-jax prior --config=prior:ar --model=runs/vq --workdir=runs/vq-ar

The argument of the config is ar, masked or flow. --model is a workdir or an
exported model, and stays as it is. The same command resumes the run of the
workdir. The keys of the config are in the class of the prior and in
lasers_jax/experiment/priors/settings.py.

  lasers-jax prior --config=prior:flow+XL --model=imagenet256:kl+gan \\
    --classes=1000 --dry_run=v5e:16x16

compiles the step for machines that need not be there, over the codes or latents
of a model of a config, and prints what it needs.
"""

from absl import flags

from lasers_jax.cli import command_line, config_file, dry_run, program
from lasers_jax.core.ranges import Whole
from lasers_jax.errors import InputError
from lasers_jax.experiment.dry_run import Task
from lasers_jax.experiment.priors import settings
from lasers_jax.experiment.priors.dry_run import of_prior
from lasers_jax.experiment.priors.loop import train_prior


def define_flags() -> None:
  command_line.define_config(settings.with_defaults)
  flags.DEFINE_string(
    'model',
    None,
    'Workdir or exported model whose codes or latents the prior models; with '
    '--dry_run a config.',
  )
  dry_run.define_flags()
  flags.DEFINE(
    command_line.Number(Whole), 'classes', 0, 'Of the labels, with --dry_run.'
  )


def main() -> int:
  given = flags.FLAGS
  path = program.WORKDIR.value
  if given.config and given.model and given.dry_run:
    return estimate(given)
  if not (given.config and given.model and path):
    raise InputError(
      '--config=FILE, --model=FOLDER and --workdir=FOLDER are needed'
    )
  program.set_up_jax(saves=True)
  state = train_prior(given.config.to_dict(), given.model, path)
  done = int(state.step) >= given.config.steps
  return 0 if done else program.STOPPED


def estimate(given: flags.FlagValues) -> int:
  """Prints what the step of a prior over a model of a config needs."""

  def build() -> Task:
    model = config_file.load(given.model).to_dict()
    return of_prior(given.config.to_dict(), model, given.classes)

  return dry_run.estimate(build, given.dry_run, given.dry_run_file)


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, resumes=True)
