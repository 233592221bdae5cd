"""Trains a prior over the codes or latents of a trained model, or resumes.

  python train_prior.py --config=prior:ar --model=runs/vq --workdir=runs/vq-ar

The argument of the config is ar, masked or flow. --model is a workdir or an
exported model, and stays as it is. The same command resumes the run of the
workdir. The keys of the config are in the class of the prior and in
lasers_jax/experiment/priors/settings.py.
"""

from absl import flags

from lasers_jax.cli import command_line, program
from lasers_jax.errors import InputError
from lasers_jax.experiment.priors import settings
from lasers_jax.experiment.priors.loop import train_prior


def define_flags() -> None:
  command_line.define_config(settings.with_defaults)
  flags.DEFINE(
    command_line.Path(),
    'model',
    None,
    'Workdir or exported model whose codes or latents the prior models.',
  )


def main() -> int:
  given = flags.FLAGS
  path = program.WORKDIR.value
  if not (given.config and given.model and path):
    raise InputError(
      '--config=FILE, --model=FOLDER and --workdir=FOLDER are needed'
    )
  program.set_up_jax(saves=True)
  state = train_prior(given.config.to_dict(), given.model, path)
  done = int(state.step) >= given.config.steps
  return 0 if done else program.STOPPED


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, resumes=True)
