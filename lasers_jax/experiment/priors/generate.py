"""Draws images from a trained prior, scores them, and writes what was found."""

import dataclasses
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lasers_jax import data, inference
from lasers_jax.core import provenance
from lasers_jax.core.images import save_png
from lasers_jax.core.storage import as_json, check_folder, write_text
from lasers_jax.errors import InputError, optional
from lasers_jax.evaluation import conditional, generation
from lasers_jax.evaluation.generation import ImageSet
from lasers_jax.experiment import generate
from lasers_jax.experiment.codec_files import read_picture
from lasers_jax.experiment.priors import latents, measuring, running
from lasers_jax.experiment.priors.labels import labels_for, shown_classes
from lasers_jax.experiment.priors.model import TrainedPrior
from lasers_jax.experiment.shipped import own_folder
from lasers_jax.metrics import classifier
from lasers_jax.priors.maps.masked import Masked
from lasers_jax.report import prior_figures
from lasers_jax.training.metric_lines import read_metrics

FOLDER = 'samples'
EACH = 8  # draws of a class in a picture
STRENGTHS = 1.0, 1.5, 3.0, 6.0  # of guidance in a picture
ROWS = 4  # completions of an image
BOUNDS = 64  # samples of a bound of bits, of which a picture has the mean


# The pixels of a square image that are given, of rows and columns in [0, 1).
HALVES = {
  'left': lambda y, x: x < 0.5,
  'right': lambda y, x: x >= 0.5,
  'top': lambda y, x: y < 0.5,
  'bottom': lambda y, x: y >= 0.5,
}


class Found(NamedTuple):
  """What a prior drew, and the real images beside it.

  Attributes:
    images: drawn, uint8 [n, h, w, 3].
    subject: of the model.
    test: `view` and `label` of the test split.
  """

  images: np.ndarray
  subject: generate.Subject
  test: dict[str, np.ndarray]


def sample_prior(
  prior: TrainedPrior,
  n: int = 10_000,
  seed: int = 0,
  features: str | None = None,
  output: str | None = None,
) -> dict[str, Any]:
  """Draws images of all classes, scores them, and measures bits.

  Writes results, pictures and a report into a folder `samples`.

  Args:
    n: images to draw, as many of each class.
    seed: of the draws.
    features: the network that compares images: a key of classifier.RECIPES, or
      a metric of sets; None takes the recipe that suits the images.
    output: where the folder is, and codes of images are kept; None is that of
      the prior.

  Returns:
    The row of results, as `generation_table` takes it.

  Raises:
    InputError: a user error.
  """
  if n < 2:
    raise InputError(f'n = {n} images cannot be scored: draw 2 or more')
  output = own_folder(prior.path, output)
  folder = os.path.join(output, FOLDER)
  check_folder(folder)
  row, found = measure(prior, n, seed, features, output)
  name = file_name(prior)
  write_text(os.path.join(folder, f'{name}.json'), as_json(row))
  with optional(f'pictures and report of {name}'):
    write_report(prior, row, found, folder, name, seed)
  return row


def measure(
  prior: TrainedPrior, n: int, seed: int, features: str | None, cache: str
) -> tuple[dict[str, Any], Found]:
  """Draws and scores images; returns the row of results, and what it is of.

  Codes of test images are kept in the folder `cache`.
  """
  model = prior.view.model
  data, pixels = model.experiment.data, prior.view.side**2
  if features is None:
    some = data.first_images(model.open_split(data.train), 100)
    features = classifier.suited(np.stack(some))
  subject = generate.prepare(model, features, None)
  labels = prior.balanced_labels(n)
  views, seconds = _timed_draws(prior, labels, seed)
  images = prior.images(views)
  drawn = ImageSet(
    prior.view.quantized(views).reshape(n, -1),
    images,
    generation.features_of(subject.real.extractor, images, model.mesh),
  )
  held_out = subject.real.held_out
  again = model.reconstruct(held_out.images)
  again_features = generation.features_of(
    subject.real.extractor, again, model.mesh
  )
  source = model.open_split(data.test)
  test = latents.code_split(prior.view, source, cache, mirrored=False)
  test['label'] = labels_for(test['label'], prior.names, data.test)
  measured = measuring.measure(
    prior.prior, prior.variables, test, prior.mesh, pixels
  )
  row = {
    'model': os.path.basename(os.path.normpath(model.path)),
    'prior': file_name(prior),
    **generation.score(drawn, subject.real),
    'floors': generation.floors(
      ImageSet(held_out.latents, again, again_features), subject.real
    ),
    'seconds': {'image': seconds / n},
    'held_out': measured,
    'class_names': list(prior.names),
    'protocol': {
      **subject.protocol,
      **describe(prior, n, seed),
    },
  }
  if 'bits_per_pixel' in measured:
    row['bits_per_pixel'] = {
      'fixed_length': model.experiment.bits_per_pixel,
      'prior': measured['bits_per_pixel'],
    }
  if prior.names and features in classifier.RECIPES:
    sets = {
      'draws': (drawn.features, labels),
      'real': (held_out.features, test['label']),
      'reconstructions': (again_features, test['label']),
    }
    row['class_accuracy'] = _accuracies(sets, subject, len(prior.names))
  return row, Found(images, subject, test)


def _timed_draws(
  prior: TrainedPrior, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, float]:
  """Draws views; returns them, and the seconds without compilation."""
  logging.info('drawing %d images', len(labels))
  prior.draw(labels[: inference.BATCH], seed)
  started = time.perf_counter()
  views = prior.draw(labels, seed)
  return views, time.perf_counter() - started


def _accuracies(
  sets: Mapping[str, tuple[np.ndarray, np.ndarray]],
  subject: generate.Subject,
  classes: int,
) -> dict[str, Any]:
  """Returns the class accuracy of features and the classes asked for."""
  return {
    name: conditional.class_accuracy(
      classifier.classes_of(subject.real.extractor, own), asked, classes
    )
    for name, (own, asked) in sets.items()
  }


def describe(prior: TrainedPrior, n: int, seed: int) -> dict[str, Any]:
  """Returns the part of the protocol that describes prior and draws."""
  experiment = prior.experiment
  return {
    'drawn': n,
    'seed': seed,
    'settings': dataclasses.asdict(prior.drawing),
    'view': experiment.view,
    'order': experiment.order,
    'prior_step': prior.step,
    'prior_weights': prior.weights,
    'parameters': sum(
      x.size for x in jax.tree.leaves(prior.variables['params'])
    ),
  }


def file_name(prior: TrainedPrior) -> str:
  """Returns the name of the files of draws: the prior and how it draws."""
  kind = type(prior.drawing)
  standard = {x.name: x.default for x in dataclasses.fields(kind)}
  words = [
    f'{name}{value}'
    for name, value in dataclasses.asdict(prior.drawing).items()
    if value != standard[name]
  ]
  return '-'.join([prior.name, *words])


def write_report(
  prior: TrainedPrior,
  row: dict[str, Any],
  found: Found,
  folder: str,
  name: str,
  seed: int,
) -> None:
  """Writes the pictures of draws, and a report with them."""
  # Imported here: results do not need the packages that draw.
  from lasers_jax.report import prior_document
  from lasers_jax.report.document import Origin

  figures = pictures(prior, found, seed)
  for kind, figure in figures.items():
    save_png(os.path.join(folder, f'{name}-{kind}.png'), figure)
  origin = Origin(
    prior.config,
    read_metrics(prior.path),
    provenance.versions(row['protocol']['commit']),
    provenance.command(),
  )
  page = prior_document.render(row, figures, origin)
  write_text(os.path.join(folder, f'{name}.html'), page)


def pictures(
  prior: TrainedPrior, found: Found, seed: int
) -> dict[str, np.ndarray]:
  """Draws the pictures of a report, by the keys of prior_document.FIGURES."""
  names, count = list(prior.names) or ['draws'], len(found.images)
  classes = [i for i in shown_classes(names) if i < count]
  each = [found.images[i :: len(names)][:EACH] for i in classes]
  shown = found.images[:EACH]
  train = found.subject.real.train.images
  _, nearest = generation.nearest_images(shown, train)
  figures = {
    'classes': prior_figures.by_class(each, [names[i] for i in classes]),
    'nearest': prior_figures.beside_nearest(shown, train[nearest]),
  }
  if prior.names and prior.prior.label_dropout:
    labels = prior.balanced_labels(EACH)
    draws = [
      prior.images(prior.with_drawing(guidance=g).draw(labels, seed))
      for g in STRENGTHS
    ]
    figures['guidance'] = prior_figures.by_guidance(draws, STRENGTHS)
  real = found.subject.real.held_out.images[:EACH]
  if prior.prior.EXACT is not None:
    bits = bits_of_sites(prior, found.test)
    figures['bits'] = prior_figures.bits_of_sites(real, bits)
  if isinstance(prior.prior, Masked):
    figures['unmasking'] = unmask(prior, seed)
  if prior.can_complete:
    figures['completions'] = complete(
      prior, real, 'left', found.test['label'][:EACH], seed
    )
  return figures


def bits_of_sites(
  prior: TrainedPrior, test: Mapping[str, np.ndarray]
) -> np.ndarray:
  """Returns the bits of the sites of a few images: [n, H, W].

  A sample of a bound has bits of some of the sites alone: of these, the mean.
  """
  rows = {name: x[:EACH] for name, x in test.items()}
  samples = [
    running.measure(prior.prior, prior.variables, rows, prior.mesh, i)
    for i in range(1 if prior.prior.EXACT else BOUNDS)
  ]
  return np.mean(samples, axis=0).sum(axis=-1)


def unmask(prior: TrainedPrior, seed: int) -> np.ndarray:
  """Draws a figure of an image as its sites are drawn, a few at a time."""
  label = prior.balanced_labels(1)[0]
  views, seen = running.draw_steps(
    prior.prior, prior.variables, label, prior.drawing, seed
  )
  steps = np.unique(np.linspace(0, len(views) - 1, EACH).round().astype(int))
  images = prior.images(views[steps])
  return prior_figures.unmasking(images, seen[steps], (steps + 1).tolist())


def complete(
  prior: TrainedPrior,
  images: np.ndarray,
  half: str,
  labels: np.ndarray,
  seed: int,
) -> np.ndarray:
  """Draws a figure of images, of which a half is given, completed.

  Args:
    images: uint8 [n, side, side, 3].
    half: a key of HALVES.
    labels: int [n].
  """
  given = HALVES[half](*np.indices((prior.view.side,) * 2) / prior.view.side)
  drawn = [prior.complete(images, given, labels, seed + i) for i in range(ROWS)]
  sites = np.broadcast_to(
    prior.known_sites(given), (len(images), *prior.view.sites)
  )
  return prior_figures.completions(images, sites, np.stack(drawn))


def complete_files(
  prior: TrainedPrior,
  paths: Sequence[str],
  half: str,
  classes: Sequence[str],
  seed: int,
  output: str,
) -> None:
  """Writes a figure of image files, of which a half is given, completed.

  Args:
    paths: of images; their centre is cropped to a square, and resized.
    half: a key of HALVES.
    classes: of each image, by name or number; [] where none is known.
    output: the PNG file.

  Raises:
    InputError: a file is no image, a class is not there, or the prior
      cannot complete images.
  """
  if not prior.can_complete:
    raise InputError(
      f'{prior.path} is a prior of latents, which cannot be given in part: '
      'complete images by a prior ar or masked'
    )
  if classes and len(classes) != len(paths):
    raise InputError(
      f'--classes has {len(classes)} classes for {len(paths)} images'
    )
  images = np.stack([square(path, prior.view.side) for path in paths])
  labels = np.full(len(paths), prior.prior.classes, np.int32)
  if classes:
    labels = prior.labels(classes)
  save_png(output, complete(prior, images, half, labels, seed))


def square(path: str, side: int) -> np.ndarray:
  """Reads the centre of an image file: uint8 [side, side, 3]."""
  image = data.resize_shorter(read_picture(path), side)
  return data.center_crop(image, side)
