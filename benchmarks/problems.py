"""Signals and atoms to code, and whether a choice among atoms is a tie."""

from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
  signals: np.ndarray  # [N, D]
  atoms: np.ndarray  # [D, K]
  s: int


def random_problem(n: int, d: int, k: int, s: int) -> Problem:
  rng = np.random.default_rng(0)
  atoms = rng.standard_normal((d, k))
  atoms /= np.linalg.norm(atoms, axis=0)
  signals = rng.standard_normal((n, d))
  return Problem(signals.astype(np.float32), atoms.astype(np.float32), s)


def is_tie(signal, atoms, chosen, selection: str) -> bool:
  """Returns whether each choice is the best one up to float32's rounding."""
  signal, atoms = signal.astype(np.float64), atoms.astype(np.float64)
  for step, atom in enumerate(chosen):
    before = chosen[:step]
    basis = np.linalg.qr(atoms[:, before])[0]
    rest = atoms - basis @ (basis.T @ atoms)
    worth = np.abs(signal @ rest)
    if selection == 'ols':
      worth /= np.maximum(np.linalg.norm(rest, axis=0), 1e-6)
    worth[before] = 0
    if worth[atom] < worth.max() - 1e-6 * np.linalg.norm(signal):
      return False
  return True
