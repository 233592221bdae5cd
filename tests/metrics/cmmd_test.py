import math

import numpy as np
import pytest

from lasers_jax.metrics import cmmd as module
from lasers_jax.metrics.cmmd import cmmd


def _unit(seed, n, shift=0.0, d=32):
  x = np.random.default_rng(seed).normal(size=(n, d))
  x[:, 0] += shift
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_closed_form_of_two_points():
  # |x - y| = 10 = sigma.
  expected = 2000 * (1 - math.exp(-0.5))
  distance = cmmd([[1.0, 2.0]], [[7.0, 10.0]])
  assert distance == pytest.approx(expected, rel=1e-12)
  assert type(distance) is float


def test_closed_form_of_few_points():
  x, y = [(0, 0), (3, 4), (0, 20)], [(1, 1), (-8, 6)]

  def kernel_mean(a, b):
    values = [math.exp(-(math.dist(p, q) ** 2) / 200) for p in a for q in b]
    return math.fsum(values) / len(values)

  expected = kernel_mean(x, x) + kernel_mean(y, y) - 2 * kernel_mean(x, y)
  assert cmmd(x, y) == pytest.approx(1000 * expected, rel=1e-12)
  assert cmmd(y, x) == pytest.approx(1000 * expected, rel=1e-12)


@pytest.mark.parametrize('shift', [0.5, 2.0])
def test_is_linear_in_unit_vectors(shift):
  x, y = _unit(0, 300), _unit(1, 200, shift)
  step = x.mean(axis=0) - y.mean(axis=0)
  assert cmmd(x, y) == pytest.approx(10 * step @ step, rel=0.01)


def test_equal_sets_are_at_distance_zero():
  x = _unit(0, 50)
  assert cmmd(x, x) == pytest.approx(0, abs=1e-11)
  assert cmmd(x, np.concatenate([x, x])) == pytest.approx(0, abs=1e-11)


def test_keeps_the_diagonals():
  # Of one distribution: 1000 (1/n + 1/m) (1 - E k) more than nothing.
  x, y = _unit(0, 100), _unit(1, 100)
  assert cmmd(x, y) == pytest.approx(20 * (1 - math.exp(-0.01)), rel=0.1)


def test_blocks_and_order_do_not_matter(monkeypatch):
  x, y = _unit(0, 50), _unit(1, 35, 0.3)
  whole = cmmd(x, y)
  assert cmmd(x[::-1], np.roll(y, 7, axis=0)) == pytest.approx(whole, rel=1e-11)
  monkeypatch.setattr(module, '_CHUNK', 16)
  assert cmmd(x, y) == pytest.approx(whole, rel=1e-11)


def test_computes_in_float64():
  x, y = (z.astype(np.float32) for z in (_unit(0, 60), _unit(1, 60, 0.3)))
  assert cmmd(x, y) == cmmd(x.astype(np.float64), y.astype(np.float64))


def test_what_is_no_pair_of_sets_is_refused():
  x = _unit(0, 4)
  with pytest.raises(ValueError, match='width 32 and 8'):
    cmmd(x, _unit(0, 4, d=8))
  for bad in (x[:0], x[0]):
    with pytest.raises(ValueError, match=r'\[n, d\] with n > 0'):
      cmmd(x, bad)
