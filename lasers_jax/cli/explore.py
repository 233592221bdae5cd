"""Takes the code of an image apart, and writes a page that shows it.

  lasers-jax explore --model=runs/photos picture.png
  lasers-jax explore --model=photo-codec --output=page.html picture.png

The page is one HTML file, which needs no network: the image, its
reconstruction and the error; a slider for the number of atoms or levels in use,
or for the step and the price of bits; for each site its atoms or codes, their
coefficients, its bits, and what each adds to the image; and how often each is
used. Of images above 256 pixels a side, it shows the middle.

The model is a workdir, an exported model, the name of one that comes along, or
a tokenizer of another project, with a discrete code.
"""

from absl import flags

from lasers_jax.cli import program
from lasers_jax.cli.command_line import Model, Path
from lasers_jax.errors import InputError
from lasers_jax.experiment.exploring import write_page
from lasers_jax.experiment.loading import load


def define_flags() -> None:
  flags.DEFINE(
    Model(),
    'model',
    None,
    'Workdir, exported model, the name of a model of the package, or a '
    'tokenizer of another project.',
  )
  flags.DEFINE(Path(), 'output', 'explore.html', 'File to write.')


def main(words: list[str]) -> None:
  given = flags.FLAGS
  if len(words) != 1 or not given.model:
    raise InputError(
      'lasers-jax explore --model=MODEL [--output=explore.html] IMAGE: a model '
      'and an image'
    )
  program.set_up_jax()
  print(write_page(load(given.model), words[0], given.output))


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, words=True)
