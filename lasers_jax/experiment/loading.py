"""Finds trained models, and reads them."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from lasers_jax import inference
from lasers_jax.core import sharding
from lasers_jax.core.arrays import flat_names
from lasers_jax.core.storage import absolute, check_bucket, is_folder
from lasers_jax.core.trees import within
from lasers_jax.errors import InputError, nearest
from lasers_jax.experiment import (
  exported,
  foreign,
  settings,
  shipped,
  tokenizers,
)
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.networks.autoencoder import network_shapes
from lasers_jax.pretrained.tokenizers import read_tokenizer
from lasers_jax.training import workdir
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.state import (
  TrainState,
  evaluation_variables,
  state_shapes,
)

# Folders of the exported models that come with the package, by name.
NAMES = {name: shipped.folder(name) for name in shipped.MODELS}


def load(
  path: str | os.PathLike, checkpoint: int | None = None
) -> TrainedModel:
  """Reads a trained model.

  Args:
    path: a workdir or the folder of an exported model, on a disk or in a
      bucket (gs://, s3://); the name of a model that comes with the package, as
      in `lasers_jax.models()`; or a tokenizer of another project,
      'diffusers:FOLDER' or a file of weights (.safetensors, .ckpt, .pth,
      .onnx).
    checkpoint: the step of a checkpoint of a workdir; None takes the newest
      that is whole.

  Returns:
    The model with averaged parameters, on as many devices as divide a batch of
    evaluation.

  Raises:
    InputError: there is no such model, or it is damaged.
  """
  path = os.fspath(path)
  is_foreign = foreign.is_foreign(path)
  folder = path if is_foreign else find(path)
  if not is_foreign and not exported.is_exported(folder):
    return _load_workdir(workdir.locate(folder), checkpoint)
  if checkpoint is not None:
    kind = 'of another project' if is_foreign else 'an exported model'
    raise InputError(
      f'{folder} is {kind} and has no checkpoints: leave out the checkpoint '
      f'{checkpoint}'
    )
  return foreign.load(path) if is_foreign else _load_exported(folder)


def find(path: str) -> str:
  """Returns the folder of a model by its path or name.

  Raises:
    InputError: there is none.
  """
  if path in NAMES and not is_folder(path):
    return NAMES[path]
  folder = absolute(path)
  if is_folder(folder):
    return folder
  check_bucket(folder)
  near = nearest(path, list(NAMES))
  raise InputError(f'{path} is no workdir of a run and no exported model{near}')


class Source(NamedTuple):
  """Holds the weights that a run begins from.

  Attributes:
    variables: `params` of the encoder and of the network of the decoder; where
      the source says them, shift and scale of latents in `codebook`.
    hash: of the weights.
  """

  variables: dict[str, Any]
  hash: str

  @property
  def params(self) -> dict[str, Any]:
    """Returns the parameters of the networks."""
    return self.variables['params']


def read_source(experiment: settings.Experiment) -> Source | None:
  """Reads `network.pretrained`; None where there is none.

  Raises:
    InputError: it is not there, not whole, or not what it was when the run
      began.
  """
  about, shapes = experiment.source, network_shapes(experiment.model)
  if not about.pretrained:
    return None
  path = tokenizers.located(about)
  found = _ours(path, shapes) if tokenizers.is_ours(path) else _foreign(path)
  if about.source_hash not in ('', found.hash):
    raise InputError(
      f'network.pretrained={path} has other weights than when the run began: '
      f'hash {found.hash} now, {about.source_hash} then; bring them back'
    )
  params = _widened(found.params, shapes, experiment.model.channels)
  found = found._replace(variables=found.variables | {'params': params})
  there, here = (
    {name: x.shape for name, x in flat_names(tree).items()}
    for tree in (found.params, shapes)
  )
  for name in sorted(there.keys() | here.keys()):
    if there.get(name) != here.get(name):
      raise InputError(
        f'{path} is of other networks: {name} is {there.get(name, "missing")} '
        f'there and {here.get(name, "missing")} in the config'
      )
  return found


def _widened(params: Any, shapes: Any, channels: int) -> Any:
  """Returns parameters of networks whose images have so many channels.

  Those after RGB, as the mask of inpainting, have no weight in the beginning.
  """
  wanted = {name: x.shape for name, x in flat_names(shapes).items()}

  def widen(name: str, leaf: np.ndarray) -> np.ndarray:
    if leaf.ndim != 4:
      return leaf
    *sides, rows, width = leaf.shape
    pixels = rows // 3  # of a block, where a kernel sees it as channels
    shape = *sides, pixels * channels, width
    if wanted.get(name) != shape or rows % 3:
      return leaf
    more = np.zeros((*sides, pixels, channels - 3, width), leaf.dtype)
    leaf = leaf.reshape(*sides, pixels, 3, width)
    return np.concatenate([leaf, more], axis=-2).reshape(shape)

  leaves = [widen(*pair) for pair in flat_names(params).items()]
  return jax.tree.unflatten(jax.tree.structure(params), leaves)


def _ours(path: str, shapes: Mapping[str, Any]) -> Source:
  variables = jax.device_get(load(path).variables)
  found = {'params': within(variables['params'], shapes)}
  if 'packing' in variables['codebook']:
    found['codebook'] = {'packing': variables['codebook']['packing']}
  return Source(found, inference.weights_hash(found))


def _foreign(path: str) -> Source:
  tokenizer = read_tokenizer(path)
  found: dict[str, Any] = {'params': tokenizer.params}
  row = {'shift': tokenizer.shift, 'scale': tokenizer.scale}
  # Zeros and ones are what is said where the files say nothing.
  if row['shift'].any() or (row['scale'] != 1).any():
    found['codebook'] = {'packing': row}
  return Source(found, tokenizer.hash)


def frozen_params(experiment: settings.Experiment, mesh: Mesh) -> Any:
  """Returns the parameters that a model leaves to its source: {} or those.

  Raises:
    InputError: as `read_source`.
  """
  if not experiment.source.frozen:
    return {}
  source = read_source(experiment)
  assert source is not None  # `SourceSettings` saw to it
  return jax.device_put(source.params, sharding.replicated(mesh))


def _config_of(path: str) -> dict[str, Any]:
  """Reads the config of a model.

  Raises:
    InputError: there is none, or it is of a prior.
  """
  config = workdir.load_config(path)
  if 'stage_one' in config:
    raise InputError(
      f'{path} is a prior and no model: name the model that it is of, '
      f'{config["stage_one"].get("path")}; `load_prior` and --prior read priors'
    )
  return config


def _load_workdir(path: str, checkpoint: int | None) -> TrainedModel:
  config = _config_of(path)
  experiment = settings.from_config(config)
  mesh = experiment.evaluation_mesh()
  state = restore(experiment, path, checkpoint, mesh)
  variables = evaluation_variables(state, frozen_params(experiment, mesh))
  step = int(state.step)
  return TrainedModel(experiment, variables, config, mesh, step, path)


def _load_exported(path: str) -> TrainedModel:
  config = _config_of(path)
  experiment = settings.from_config(config)
  mesh = experiment.evaluation_mesh()
  # An export has no state of an optimizer.
  side, module = experiment.data.side, experiment.model
  shapes = evaluation_variables(state_shapes(module, optax.identity(), side))
  frozen = jax.device_get(frozen_params(experiment, mesh))
  file = os.path.join(path, exported.WEIGHTS)
  variables, step = exported.read(file, shapes, frozen)
  variables = jax.device_put(variables, sharding.replicated(mesh))
  return TrainedModel(experiment, variables, config, mesh, step, path)


def restore(
  experiment: settings.Experiment, path: str, step: int | None, mesh: Mesh
) -> TrainState:
  """Reads a checkpoint of a workdir to every device of a mesh.

  Raises:
    InputError: there is none, or it is damaged.
  """
  optimizer, adversary = settings.build_learners(experiment)
  side = experiment.data.side
  shapes = state_shapes(experiment.model, optimizer, side, adversary)
  places = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
  target = sharding.with_shardings(shapes, places)
  with Checkpoints(path, read_only=True) as checkpoints:
    state = checkpoints.restore(target, step)
  if state is None:
    raise InputError(f'{path} has no checkpoint yet')
  return state
