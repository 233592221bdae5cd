"""Priors trained by two processes, of eight devices in all."""

import numpy as np
import pytest

from lasers_jax.experiment.priors import loop
from lasers_jax.experiment.priors.model import load_prior
from tests import tiny
from tests.experiment.distributed_test import finish, open_mpi, start
from tests.experiment.priors.conftest import config

pytestmark = pytest.mark.slow


def test_two_processes_train_as_one(model, tmp_path):
  given = config(checkpoint_every=0, evaluate_every=4)
  file, one, two = (tmp_path / x for x in ('config.py', 'one', 'two'))
  file.write_text(
    'from ml_collections import ConfigDict\n'
    f'def get_config(): return ConfigDict({given!r})\n'
  )
  flags = f'--config={file}', f'--model={model}', f'--workdir={two}'
  finish(start(2, open_mpi, 'train_prior.py', *flags))
  loop.train_prior(given, str(model), str(one))
  np.testing.assert_allclose(tiny.losses(two), tiny.losses(one), rtol=1e-4)
  # Both validate and draw, and one of them writes.
  ours, theirs = (tiny.metrics(path)[-1] for path in (two, one))
  assert ours['step'] == 4
  assert ours['validation_bits_per_site'] == pytest.approx(
    theirs['validation_bits_per_site'], rel=1e-4
  )
  assert (two / 'pictures' / '4.png').exists()
  # Each process finds the codes that the other wrote.
  assert len(list((two / 'latents').glob('*/*.npz'))) == 2
  # Statistics are of the rows of both.
  ours, theirs = (
    load_prior(path).variables['codebook']['vectors_0'] for path in (two, one)
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
