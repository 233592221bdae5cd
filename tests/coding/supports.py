"""Compares the supports of an accelerator with those of float64 on the host.

  python tests/coding/supports.py

Prints a line for each K: the device, K, and the share of equal supports. None
where the default device is a CPU; `--any` takes it as well.
"""

import sys

import jax
import numpy as np

from lasers_jax import coding
from tests.coding.omp_reference import random_problem

D, S = 64, 4
SIGNALS = {512: 16_384, 16_384: 4096}


def main() -> None:
  device = jax.devices()[0]
  if device.platform == 'cpu' and '--any' not in sys.argv:
    return
  for k, n in SIGNALS.items():
    signals, atoms = random_problem(0, n, D, k)
    found = coding.batch_omp(signals, atoms, S).atoms
    expected = float64_supports(signals, atoms)
    same = np.sort(np.asarray(found)) == np.sort(expected)
    kind = device.device_kind.replace(' ', '-')
    print(kind, k, f'{same.all(axis=1).mean():.5f}')


def float64_supports(signals: np.ndarray, atoms: np.ndarray) -> np.ndarray:
  """Pursues all signals at once, by float64 residuals: [N, S]."""
  signals, atoms = np.float64(signals), np.float64(atoms)
  chosen, residuals = [], signals
  for _ in range(S):
    scores = np.abs(residuals @ atoms)
    chosen.append(scores.argmax(axis=1))
    vectors = np.moveaxis(atoms[:, np.stack(chosen, 1)], 0, 1)  # [N, D, s]
    fit = np.linalg.pinv(vectors) @ signals[:, :, None]
    residuals = signals - (vectors @ fit)[:, :, 0]
  return np.stack(chosen, axis=1)


if __name__ == '__main__':
  main()
