"""Files of integers that contexts predict: versions, damage, other machines."""

import hashlib
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from lasers_jax.bottlenecks import Entropy
from lasers_jax.codec import Codec, container, fit_scales, fit_tables
from lasers_jax.codec.coder import Reader, Writer
from lasers_jax.codec.context import Kind, Network
from lasers_jax.codec.context import shapes as network_shapes
from lasers_jax.errors import InputError
from tests.codec.scales_test import arrays, draw_codes, draw_scales

pytest.importorskip('constriction')

SIDE = 16
SITES, MANY = (20, 30), 40


@pytest.fixture(scope='module')
def made():
  """A codec with contexts, one without, and codes."""
  z = jax.random.normal(jax.random.key(0), (2, SIDE, SIDE, 8))
  module = Entropy(D=8, limit=15, step=0.3)
  variables = module.init(jax.random.key(1), z, train=False)
  codes = np.asarray(module.apply(variables, z, method='encode'))
  maps = [(one, (SIDE, SIDE)) for one in codes]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fit_scales, 'STEPS', 20)
    tables = [fit_tables(module, maps, context) for context in (True, False)]
  codecs = [Codec(module, 1, 1, x, b'abcd') for x in tables]
  return *codecs, codes[0]


def test_their_version_is_their_own(made):
  predicted, plain, codes = made
  for codec, version in (predicted, 3), (plain, 2):
    data = codec.write(codes, SIDE, SIDE)
    assert data[2] == version
    np.testing.assert_array_equal(codec.read(data)[0], codes)
    frame = container.unpack(data)._replace(version=5 - version)
    with pytest.raises(InputError) as error:
      codec.read(container.pack(frame))
    assert str(error.value) == (
      f'the file is of version {5 - version}, and the codes of this model are '
      f'read from version {version}'
    )


def test_contexts_of_an_older_version_are_refused(made):
  predicted, _, _ = made
  tables = {'@beside': np.ones((8, 8), np.int64), **predicted.tables}
  del tables['@classes']
  with pytest.raises(InputError, match='older version: remove its file') as e:
    Codec(predicted.bottleneck, 1, 1, tables, b'abcd')
  assert '\n' not in str(e.value)


def test_damaged_files_are_read_or_refused_with_one_line(made):
  codec, _, codes = made
  whole, rng, refused = (
    codec.write(codes, SIDE, SIDE),
    np.random.default_rng(0),
    0,
  )
  for trial in range(300):
    body = bytearray(whole[container.HEAD_BYTES :])
    for _ in range(rng.integers(1, 5)):
      body[rng.integers(2 * (trial % 2), len(body))] = rng.integers(256)
    if trial % 3 == 0:
      body = body[: rng.integers(len(body))]
    body = bytes(body)
    data = container.head(b'abcd', body, container.PREDICTED) + body
    try:
      found, height, width = codec.read(data)
      assert found.shape == (height, width, 8)
      assert np.abs(found).max() <= 15
    except InputError as error:
      refused += 1
      assert '\n' not in str(error)
  assert refused > 100


def payload():
  """Words of many planes, by tables that nothing fitted."""
  tables = arrays(draw_scales(planes=MANY, smooth=(0, 3), quiet=range(30, 40)))
  codes = draw_codes(SITES, planes=MANY)
  writer = Writer(tables)
  writer.numbers('a', codes, SITES, 5, MANY)
  reader = Reader(tables, writer.payload())
  found = reader.numbers('a', None, SITES, 5, MANY)
  np.testing.assert_array_equal(found, codes)
  return hashlib.sha256(writer.payload()).hexdigest()[:16]


def others():
  """Words of codes of all other kinds."""
  rng = np.random.default_rng(0)
  kind = Kind((6, 9))
  parts = [rng.integers(-99, 99, x) for x in network_shapes(kind)]
  net = {f'n@{k}': x for k, x in zip(Network._fields, parts, strict=True)}
  several = {f'i{k}': rng.integers(1, 2**20, (1, 11)) for k in range(2)}
  tables = {'t': rng.integers(1, 2**20, (3, 12)), **net, **several}
  writer, rows = Writer(tables), rng.integers(0, 3, 500)
  writer.table('t', rng.integers(0, 12, 500), 500, 12, rows, 3)
  sets = np.sort([rng.permutation(12)[:4] for _ in range(60)], axis=1)
  tables['t'] = tables['t'][:1]
  writer.sets('t', sets.reshape(6, 10, 4), (6, 10), 12, 4)
  codes = np.stack([rng.integers(0, size, (7, 8)) for size in (6, 9)], axis=-1)
  writer.planes('n', codes, (7, 8), (6, 9))
  writer.numbers('i', draw_codes((4, 6), planes=2), (4, 6), 5, 2)
  return hashlib.sha256(writer.payload()).hexdigest()[:16]


def test_bytes_of_predicted_integers():
  assert payload() == '77a68f280f4458c0'


def test_bytes_of_all_other_codes():
  assert others() == '45cf008e5e0254e0'


@pytest.mark.slow
@pytest.mark.parametrize(
  'variables',
  [
    {'JAX_ENABLE_X64': '1', 'OPENBLAS_NUM_THREADS': '1'},
    {
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
      'OPENBLAS_NUM_THREADS': '3',
      'OPENBLAS_CORETYPE': 'Nehalem',  # without fused products and sums
    },
  ],
)
def test_bytes_are_the_same_elsewhere(variables):
  words = 'from tests.codec.numbers_files_test import payload; print(payload())'
  found = subprocess.run(
    [sys.executable, '-c', words],
    env={**os.environ, **variables},
    check=True,
    capture_output=True,
    text=True,
  )
  assert found.stdout.split()[-1] == payload()
