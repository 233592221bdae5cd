"""Pursuits in float64 NumPy, one signal at a time: what the coder must equal.

Written as they read in a paper, with no thought of speed: Y. C. Pati,
R. Rezaiifar and P. S. Krishnaprasad, Asilomar 1993 (OMP); S. Chen,
S. A. Billings and W. Luo, Int. J. Control 50(5), 1989 (OLS); A. M. Bruckstein,
M. Elad and M. Zibulevsky, IEEE Trans. Inf. Theory 54(11), 2008 (NNOMP).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls


class Pursuits(NamedTuple):
  atoms: np.ndarray  # [N, S], in the order of the pursuit; -1 after its end
  coefficients: np.ndarray  # [N, S], zero after the end
  count: np.ndarray  # [N]


def random_problem(seed, n, d, k):
  """Gaussian signals [N, D] and unit-norm atoms [D, K], float32."""
  rng = np.random.default_rng(seed)
  signals = rng.standard_normal((n, d)).astype(np.float32)
  return signals, unit(rng.standard_normal((d, k)))


def unit(atoms):
  """Scales columns to norm 1, float32; zero stays zero."""
  atoms = np.asarray(atoms, np.float64)
  norms = np.linalg.norm(atoms, axis=0)
  return (atoms / np.where(norms > 0, norms, 1)).astype(np.float32)


def refit(signal, atoms, positive=False):
  """Least squares over atoms [D, s]: the coefficients [s]."""
  size = np.linalg.norm(signal)
  if positive and atoms.shape[1] and size:
    return size * nnls(atoms, signal / size)[0]  # its tolerances are absolute
  return np.linalg.lstsq(atoms, signal)[0]


def worth(signal, dictionary, chosen, selection='omp', positive=False):
  """How good each atom is as the next one: [K]; -inf where it cannot be.

  For OLS it is the root of what the atom would take off the squared error.
  """
  coefficients = refit(signal, dictionary[:, chosen], positive)
  products = (signal - dictionary[:, chosen] @ coefficients) @ dictionary
  scores = products if positive else np.abs(products)
  if selection == 'ols':
    basis = np.linalg.qr(dictionary[:, chosen])[0]
    sines = np.linalg.norm(dictionary - basis @ (basis.T @ dictionary), axis=0)
    scores = np.where(sines > 1e-3, scores / np.maximum(sines, 1e-3), -np.inf)
  scores[chosen] = -np.inf
  return scores


def pursue(
  signals,
  dictionary,
  s,
  selection='omp',
  positive=False,
  residual_norm=0.0,
  limit=None,
):
  """Codes signals [N, D]; options as `batch_omp` has them."""
  signals, dictionary = np.float64(signals), np.float64(dictionary)
  n = len(signals)
  residual_norm = np.broadcast_to(residual_norm, n)
  limit = np.broadcast_to(s if limit is None else limit, n)
  result = Pursuits(
    np.full((n, s), -1), np.zeros((n, s)), np.zeros(n, np.int32)
  )
  for i, signal in enumerate(signals):
    chosen = []
    while len(chosen) < limit[i]:
      coefficients = refit(signal, dictionary[:, chosen], positive)
      residual = signal - dictionary[:, chosen] @ coefficients
      scores = worth(signal, dictionary, chosen, selection, positive)
      floor = 1e-6 * np.linalg.norm(signal)
      if np.linalg.norm(residual) <= residual_norm[i] or scores.max() <= floor:
        break
      chosen.append(int(scores.argmax()))
    count = len(chosen)
    result.atoms[i, :count] = chosen
    result.coefficients[i, :count] = refit(
      signal, dictionary[:, chosen], positive
    )
    result.count[i] = count
  return result


def regret(signals, dictionary, atoms, count, **options):
  """How far the worst choice of each pursuit is from the best one.

  Replays the pursuits along the chosen atoms [N, S].

  Returns:
    [N], in units of the signal's norm.
  """
  signals, dictionary = np.float64(signals), np.float64(dictionary)
  worst = np.zeros(len(signals))
  for i, signal in enumerate(signals):
    for step in range(count[i]):
      scores = worth(signal, dictionary, list(atoms[i, :step]), **options)
      loss = scores.max() - scores[atoms[i, step]]
      worst[i] = max(worst[i], loss / np.linalg.norm(signal))
  return worst


def refit_gradients(signals, dictionary, atoms, count, cotangent, h=1e-6):
  """Central differences of sum(cotangent * coefficients), supports held.

  Args:
    atoms: [N, S], of which the first count [N] are fitted.
    cotangent: [N, S].

  Returns:
    The gradients with respect to signals [N, D] and dictionary [D, K].
  """
  signals, dictionary = np.float64(signals), np.float64(dictionary)
  by_signals, by_atoms = np.zeros_like(signals), np.zeros_like(dictionary)
  for i, signal in enumerate(signals):
    used = list(atoms[i, : count[i]])
    chosen, weights = dictionary[:, used], cotangent[i, : count[i]]
    for d in range(len(signal)):
      step = np.zeros(len(signal))
      step[d] = h
      change = refit(signal + step, chosen) - refit(signal - step, chosen)
      by_signals[i, d] = weights @ change / (2 * h)
      for j, atom in enumerate(used):
        moved = np.zeros_like(chosen)
        moved[d, j] = h
        change = refit(signal, chosen + moved) - refit(signal, chosen - moved)
        by_atoms[d, atom] += weights @ change / (2 * h)
  return by_signals, by_atoms
