"""Models with random weights of which each counts."""

import jax
import numpy as np

from lasers_jax.core import sharding
from lasers_jax.experiment import settings
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.training.state import evaluation_variables, state_shapes

NETWORK = {
  'name': 'resnet',
  'D': 4,
  'channels': 8,
  'multipliers': (1, 2),
  'blocks': 1,
  'attention': (2,),
  'groups': 4,
  'downsample': 'conv3',
}
VQVAE = {
  'name': 'vqvae',
  'D': 4,
  'channels': 8,
  'residual_channels': 4,
  'residual_blocks': 2,
  'f': 4,
}
IMAGES = np.random.default_rng(1).random((2, 16, 24, 3), np.float32)


def made(bottleneck, sections=None, **network):
  """A model of tiny images; `network` is beside NETWORK, or another one."""
  config = {
    'steps': 1,
    'batch_size': 2,
    'data': {'name': 'given', 'side': 16},
    'network': network if 'name' in network else NETWORK | network,
    'bottleneck': bottleneck,
    **(sections or {}),
  }
  experiment = settings.from_config(config)
  shapes = state_shapes(
    experiment.model, settings.build_learners(experiment)[0], 16
  )
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    deviation = 0.3 if len(leaf.shape) < 3 else np.prod(leaf.shape[:-1]) ** -0.5
    array = rng.normal(0, deviation, leaf.shape).astype(np.float32)
    return 1 + array if 'scale' in str(path[-1]) else array

  variables = jax.tree_util.tree_map_with_path(
    draw, evaluation_variables(shapes)
  )
  mesh = experiment.evaluation_mesh()
  variables = jax.device_put(variables, sharding.replicated(mesh))
  return TrainedModel(experiment, variables, config, mesh, 0, '')
