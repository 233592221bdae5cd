"""A layer by itself, as the docstring of `Bottleneck` shows it."""

import jax
import numpy as np
import pytest

from lasers_jax.bottlenecks import BOTTLENECKS, VQ, Bottleneck, start
from tests.bottlenecks.rows import (
  ROWS,
  B,
  D,
  assert_same,
  build,
  normal,
  shape_of,
)

pytestmark = pytest.mark.slow

FIRST = {ROWS[x]['name']: ROWS[x] for x in reversed(ROWS)}


@pytest.mark.parametrize('name', BOTTLENECKS)
def test_four_lines_code_and_decode(name):
  module = build(**FIRST[name])
  z = normal(shape_of(module))  # of which others have compiled the parts
  variables = start(module, z, jax.random.key(0))
  codes = module.apply(variables, z, method='encode')
  quantized = module.apply(variables, codes, method='decode')
  latent = module.apply(variables, z, train=False)
  assert_same((latent.codes, latent.quantized), (codes, quantized))


def test_the_docstring_shows_what_runs():
  lines = Bottleneck.__doc__.split('\n\n')[1]
  known = {'VQ': VQ, 'start': start, 'jax': jax, 'z': normal((2, 4, 4, 16))}
  exec('\n'.join(line.strip() for line in lines.splitlines()), known)
  assert known['quantized'].shape == known['z'].shape


def test_the_start_is_from_data_and_a_function_of_the_key():
  module, z = VQ(D=D, K=4), normal((B, 4, 4, D))
  one, same, other = (start(module, z, jax.random.key(i)) for i in (0, 0, 1))
  assert_same(one, same)
  codes = np.asarray(one['codebook']['codes'])
  assert np.any(codes != np.asarray(other['codebook']['codes']))
  away = np.linalg.norm(codes[:, None] - np.asarray(z).reshape(-1, D), axis=-1)
  assert np.all(away.min(axis=1) < 0.3)
