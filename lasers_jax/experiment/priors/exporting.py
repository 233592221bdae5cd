"""Writes and reads exported priors: folders that need no checkpoint.

The files are those of an exported model (`experiment/exported.py`), and
data.json, which has the names of classes and the order of planes. The model
that the prior is of is not in the folder: config.json has its path and hash.
"""

import dataclasses
import os
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from lasers_jax import inference
from lasers_jax.core import provenance, sharding
from lasers_jax.core.storage import as_json, write_text
from lasers_jax.experiment import exported
from lasers_jax.experiment.priors.labels import CLASSES
from lasers_jax.experiment.priors.settings import with_defaults
from lasers_jax.experiment.priors.views import PLANES
from lasers_jax.priors.maps.base import MapPrior
from lasers_jax.report import model_card
from lasers_jax.training import workdir
from lasers_jax.training.prior_step import prior_state_shapes
from lasers_jax.training.state import evaluation_variables

KEPT = CLASSES, PLANES  # of data.json; the fingerprints of data are left out


def write(prior: Any, folder: str, half: bool, licence: str) -> None:
  """Writes a TrainedPrior; see its `export`."""
  folder = exported.check_target(folder)
  if half:
    variables = exported.halved(prior.variables)
    prior = dataclasses.replace(prior, variables=variables)
  known = workdir.load_fingerprints(prior.path)
  about = {
    'step': prior.step,
    'parameters': inference.count_parameters(prior.variables),
    'classes': list(prior.names),
    'version': provenance.versions(provenance.commit())['lasers_jax'],
    'licence': licence,
  }
  title, complete = os.path.basename(folder), with_defaults(prior.config)
  card = model_card.prior_card(title, complete, about)
  metadata = {'weights': prior.weights, 'step': str(prior.step)}
  kept = {name: known[name] for name in KEPT if name in known}
  with exported.written_whole(folder) as part:
    workdir.write_config(part, prior.config)
    write_text(os.path.join(part, workdir.FINGERPRINTS), as_json(kept))
    write_text(os.path.join(part, exported.CARD), card)
    path = os.path.join(part, exported.WEIGHTS)
    exported.write_weights(path, prior.variables, metadata, half)


def read(
  path: str, prior: MapPrior, example: Any, mesh: Mesh
) -> tuple[Any, int]:
  """Reads the variables of an exported prior to every device, and its step.

  Raises:
    InputError: the file is damaged, or of another prior than the config.
  """
  # An export has no state of an optimizer.
  state = prior_state_shapes(prior, optax.identity(), example)
  file = os.path.join(path, exported.WEIGHTS)
  variables, step = exported.read(file, evaluation_variables(state), {})
  return jax.device_put(variables, sharding.replicated(mesh)), step
