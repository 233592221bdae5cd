"""Fits vector priors to trained models, draws new images, and scores them."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lasers_jax import inference
from lasers_jax.core import provenance
from lasers_jax.core.images import save_png
from lasers_jax.core.storage import as_json, check_folder, write_text
from lasers_jax.errors import InputError, optional
from lasers_jax.evaluation import generation
from lasers_jax.evaluation.generation import ImageSet, Real
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.shipped import own_folder
from lasers_jax.metrics import classifier
from lasers_jax.metrics.base import Extractor
from lasers_jax.metrics.registry import METRICS, load_metrics
from lasers_jax.priors import vector
from lasers_jax.report import generation_table, grids

GRID = 8  # new images in a row, and rows, of a prior's figure


class Subject(NamedTuple):
  """A model, and the real images that drawn ones are compared with."""

  model: TrainedModel
  real: Real
  shape: tuple[int, int, int]  # (H, W, D) of a latent
  protocol: dict  # of the results of all priors


def sample_all(
  models: Sequence[TrainedModel],
  specs: list[str],
  n: int = 10_000,
  seed: int = 0,
  features: str = classifier.NAME,
  output: str | None = None,
) -> list[dict]:
  """Fits each prior to each model, draws images, scores them, writes results.

  Args:
    models: of the same data, from workdirs.
    specs: priors, as `vector.parse` reads them.
    n: images to draw for each prior.
    seed: of fitting and drawing.
    features: the network that compares images: a key of classifier.RECIPES, or
      a metric of sets such as 'fd-vgg16'.
    output: a folder for one table of all; None writes none.

  Returns:
    A row of results for each model and prior.

  Raises:
    InputError: a user error.
  """
  if n < 2:
    raise InputError(f'n = {n} images cannot be scored: draw 2 or more')
  if len({str(model.experiment.data) for model in models}) > 1:
    raise InputError('models in one table must be of the same data')
  priors = {
    (model.path, spec): suited(vector.parse(spec), model)
    for model in models
    for spec in specs
  }
  for model in models:
    check_folder(os.path.join(own_folder(model.folder, None), 'samples'))
  if output:
    check_folder(output)
  rows, shown, extractor = [], [], None
  for model in models:
    subject = prepare(model, features, extractor)
    extractor = subject.real.extractor
    for spec in specs:
      row, images = sample(subject, spec, priors[model.path, spec], n, seed)
      rows.append(row)
      shown.append(images)
      write_prior(model.folder, row, images)
    if output:
      write_tables(rows, shown, output)
  return rows


def draw(model: TrainedModel, prior: str, n: int, seed: int = 0) -> np.ndarray:
  """Draws images from a prior that `sample` has fitted to a model.

  Args:
    model: of a workdir that has the prior, or one that came with it.
    prior: its words, as they were fitted: 'pmfs', 'pmfs:k=100'.
    n: images to draw.
    seed: of the draw. The images depend on it and on n alone.

  Returns:
    uint8 [n, side, side, 3].

  Raises:
    InputError: it is not fitted, or was to other weights.
  """
  file = prior_file(model.folder, prior)
  fitted, state = vector.load(file, {'weights': model.weights})
  latents = vector.draw(fitted, state, jax.random.key(seed), n, model.mesh)
  side = model.experiment.data.side
  shape = *model.module.sites(side, side), model.module.encoder.D
  return model.decode_latents(np.asarray(latents).reshape(n, *shape))


def suited(prior: vector.Prior, model: TrainedModel) -> vector.Prior:
  """Returns a prior that suits a model; a histogram gets the width of a site.

  Raises:
    InputError: a prior of numbers for a model with a discrete code.
  """
  if isinstance(prior, vector.SiteHistogram):
    return dataclasses.replace(prior, width=model.module.encoder.D)
  if model.module.bottleneck.bits_per_site is not None:
    raise InputError(
      f'{model.path} has a discrete code, and {type(prior).__name__} draws '
      'latents of no code: use --priors=histogram'
    )
  return prior


def prepare(
  model: TrainedModel, features: str, extractor: Extractor | None
) -> Subject:
  """Encodes the real images of a model, and scores them as a baseline."""
  experiment, mesh = model.experiment, model.mesh
  data = experiment.data
  read = []
  for split in data.train, data.test:
    source = model.open_split(split)
    logging.info('%s: coding %d images of %s', model.path, len(source), split)
    batches = data.evaluation_batches(
      source, experiment.evaluation.batch_size, experiment.pad_multiple
    )
    read.append(generation.read(model.module, model.variables, batches, mesh))
  if extractor is None:
    _, images, labels = read[0]
    extractor = load_extractor(features, images, labels, data.flip)
  train, held_out = (
    ImageSet(
      latents.reshape(len(latents), -1),
      images,
      generation.features_of(extractor, images, mesh),
    )
    for latents, images, _ in read
  )
  real = generation.compare_real(train, held_out, extractor)
  said = describe_protocol(model, real, features)
  return Subject(model, real, read[0][0].shape[1:], said)


def load_extractor(
  name: str, images: np.ndarray, labels: np.ndarray, mirror: bool
) -> Extractor:
  """Loads the network that compares images, by its name.

  Args:
    name: a key of classifier.RECIPES, or of a metric of sets.
    images, labels, mirror: that train a classifier.
  """
  if name not in classifier.RECIPES:
    of_sets = load_metrics([name]).of_sets
    if name not in of_sets:
      raise InputError(f'features must be a metric of sets, not {name!r}')
    return of_sets[name]
  recipe = classifier.RECIPES[name]
  return classifier.kept_classifier(images, labels, recipe, mirror=mirror)


def sample(
  subject: Subject, spec: str, prior: vector.Prior, n: int, seed: int
) -> tuple[dict, np.ndarray]:
  """Fits a prior, draws images and scores them.

  Returns:
    The row of results, and the images uint8 [n, h, w, 3].
  """
  model = subject.model
  logging.info('%s: fitting %s', model.path, prior)
  latents, seconds, state = generation.fit_and_draw(
    prior, subject.real.train.latents, n, seed, model.mesh
  )
  logging.info('fitted in %.2f s, drew in %.3f s', *seconds.values())
  file = prior_file(model.folder, spec)
  about = {'weights': subject.protocol['weights']}
  vector.save(file, prior, state, about)
  images = model.decode_latents(latents.reshape(n, *subject.shape))
  features = generation.features_of(subject.real.extractor, images, model.mesh)
  drawn = ImageSet(latents, images, features)
  return {
    'model': os.path.basename(os.path.normpath(model.path)),
    'prior': spec,
    **generation.score(drawn, subject.real),
    'seconds': seconds,
    'protocol': {
      **subject.protocol,
      'drawn': n,
      'settings': dataclasses.asdict(prior),
      'seed': seed,
    },
  }, images


def describe_protocol(model: TrainedModel, real: Real, features: str) -> dict:
  """Returns the part of the results that describes model and real images."""
  data = model.experiment.data
  return {
    **data.describe(data.test),
    'fitted_to': data.train,
    'train': len(real.train.latents),
    'held_out': len(real.held_out.latents),
    'features': {
      'network': (
        METRICS[features].protocol
        if features in METRICS
        else classifier.RECIPES[features].description
      ),
      'weights': inference.weights_hash(real.extractor.params),
    },
    'step': model.step,
    'weights': model.weights,
    'commit': provenance.commit(),
  }


def prior_file(folder: str, spec: str) -> str:
  """Returns the path of a fitted prior of the model in a folder."""
  return os.path.join(folder, 'samples', f'{file_name(spec)}.npz')


def file_name(spec: str) -> str:
  """Returns the name of the files of a prior, without an ending."""
  return spec.replace(':', '-').replace('=', '')


def write_prior(path: str, row: dict, images: np.ndarray) -> None:
  """Writes the scores of a prior into a workdir, and then its grid."""
  base = os.path.join(path, 'samples', file_name(row['prior']))
  write_text(f'{base}.json', as_json(row))
  with optional(f'{base}.png'):
    cells = images[: GRID**2]
    grid = [cells[i : i + GRID] for i in range(0, len(cells), GRID)]
    save_png(f'{base}.png', grids.grid(grid))


def write_tables(
  rows: list[dict], shown: list[np.ndarray], folder: str
) -> None:
  """Writes the table of all rows, and a figure of new images of each."""
  write_text(os.path.join(folder, 'table.json'), as_json(rows))
  tables = generation_table.overview(rows), generation_table.table(rows)
  write_text(os.path.join(folder, 'table.md'), '\n'.join(tables))
  with optional('pictures.png'):
    labels = [f'{row["model"]} {row["prior"]}' for row in rows]
    grid = grids.grid([images[: 2 * GRID] for images in shown], labels)
    save_png(os.path.join(folder, 'pictures.png'), grid)
