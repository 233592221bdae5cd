"""Compiles the step of a prior for machines that need not be there."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lasers_jax.core import sharding
from lasers_jax.experiment import loop
from lasers_jax.experiment import settings as model_settings
from lasers_jax.experiment.dry_run import Task
from lasers_jax.experiment.priors import settings
from lasers_jax.experiment.priors.loop import build_program
from lasers_jax.experiment.priors.views import events_of
from lasers_jax.priors.maps.events import Events


def of_prior(
  config: Mapping[str, Any], model: Mapping[str, Any], classes: int
) -> Task:
  """Returns the step of a prior over the codes of a model not yet trained.

  Args:
    config: of the prior.
    model: the config of the model.
    classes: of the labels; 0 without labels.
  """
  run = settings.from_config(config)
  experiment = model_settings.from_config(model)
  side, module = experiment.data.side, experiment.model
  sites = module.sites(side, side)
  width = module.encoder.D
  given: dict[str, Any] = {'sites': sites, 'classes': classes, 'D': width}
  shape, dtype = (*sites, width), np.dtype(np.float32)
  if run.view == 'codes':
    layout = _events(module, side, run.order).layout
    patch = sites[0] // layout.sites[0]
    width *= patch**2
    given |= {'layout': layout, 'sites': layout.sites, 'D': width}
    shape, dtype = (*layout.sites, len(layout.sizes)), np.dtype(np.int32)
  prior = settings.build_prior(run, **given)

  def build(mesh: Mesh) -> loop.Program:
    first = jax.ShapeDtypeStruct((1, *shape), dtype)
    return build_program(run, prior, first, mesh)

  def trace(program: loop.Program, mesh: Mesh) -> jax.stages.Traced:
    rows = sharding.batch_sharding(mesh)
    batch = {
      'view': jax.ShapeDtypeStruct(
        (run.batch_size, *shape), dtype, sharding=rows
      ),
      'label': jax.ShapeDtypeStruct((run.batch_size,), np.int32, sharding=rows),
    }
    return program.step.trace(program.target, batch)

  return Task(
    run,
    lambda mesh: sharding.check_batch(run.batch_size, mesh, 'batch_size'),
    build,
    trace,
  )


def _events(module: Any, side: int, order: str) -> Events:
  """Returns the events of a model whose weights are drawn at random."""
  image = np.zeros((1, side, side, 3), np.float32)
  variables = jax.jit(module.init)(jax.random.key(0), image)
  return events_of(module, variables, side, order)
