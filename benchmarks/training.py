"""Training in the programs that measure what they have trained."""

import sys
from collections.abc import Mapping
from typing import Any

import jax

import lasers_jax as lj
from lasers_jax.cli.program import STOPPED
from lasers_jax.experiment import evaluate


def train_and_measure(config: Mapping[str, Any], path: str) -> dict[str, Any]:
  """Trains a model in the workdir `path`; returns its results.

  Where the run is asked to stop, the program ends with STOPPED, and goes on
  when it is called again: an unfinished model is not measured.
  """
  model = lj.train(config, path)
  if model.step < config['steps']:
    sys.exit(STOPPED)
  found = evaluate.measure(model, baselines=False).results
  jax.clear_caches()
  return found
