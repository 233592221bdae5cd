"""Dead atoms come back, in every bottleneck, and stay."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.bottlenecks.rows import (
  CODEBOOKS,
  Case,
  K,
  assert_same,
  norms,
  revive,
  signals_of,
  start_row,
  stored,
  train,
  unit,
)


@pytest.fixture(scope='module', params=CODEBOOKS)
def case(request) -> Case:
  return start_row(request.param)


DEAD = np.array([2, 7, 11])
ALIVE = np.setdiff1d(np.arange(K), DEAD)


def after_steps(case: Case) -> Case:
  """Two steps, so that all statistics have something in them."""
  for _ in range(2):
    _, codebook = train(case, case.z)
    case = case._replace(variables={**case.variables, 'codebook': codebook})
  return case


def with_dead(case: Case, which) -> Case:
  """A book of equal use, but for those that nothing has chosen for long."""
  codebook = dict(case.variables['codebook'])
  codebook['use'] = jnp.ones(K).at[np.array(which)].set(1e-6)
  if 'sums' in codebook:
    codebook['sums'] = codebook['codes'] * codebook['use'][:, None]
  return case._replace(variables={**case.variables, 'codebook': codebook})


def learns(case: Case) -> bool:
  return case.module.learning != 'fixed'


@pytest.fixture(scope='module')
def revived(case) -> tuple[Case, Case]:
  before = with_dead(after_steps(case), DEAD)
  return before, revive(before, case.z)


def test_revive_replaces_the_dead_and_nothing_else(revived):
  before, after = revived
  changed = np.any(stored(before) != stored(after), axis=1)
  expected = DEAD if learns(before) else []
  np.testing.assert_array_equal(np.flatnonzero(changed), expected)

  use = [x.variables['codebook']['use'] for x in revived]
  np.testing.assert_array_equal(use[1][ALIVE], use[0][ALIVE])
  if learns(before):
    np.testing.assert_array_equal(use[1][DEAD], 1)


def test_revived_atoms_are_made_of_signals(revived):
  before, after = revived
  if not learns(before):
    assert_same(before.variables, after.variables)
    return
  new = stored(after)[DEAD]
  if 'codes' in after.variables[after.home]:
    signals, found = signals_of(after), after.apply(method='atoms')[DEAD]
    if getattr(after.module, 'distance', None) == 'cosine':
      signals = unit(signals)
    apart = np.abs(signals[None] - found.reshape(len(DEAD), 1, -1)).max(axis=2)
    # A norm and an affine map round.
    rounds = getattr(after.module, 'distance', None) == 'cosine'
    rounds |= bool(getattr(after.module, 'affine', 0.0))
    assert np.all(apart.min(axis=1) <= (1e-5 if rounds else 0))
  else:
    np.testing.assert_allclose(norms(new), 1, rtol=1e-5)
  assert norms(new[0] - new[1]) > 0.1
  assert norms(new[1] - new[2]) > 0.1


def test_revived_atoms_forget_their_statistics(revived):
  before, _ = revived
  if before.module.learning != 'online':
    pytest.skip('has no statistics of pairs of atoms')
  old, new = (x.variables['codebook']['statistics'] for x in revived)
  assert np.all(np.diagonal(old.codes)[DEAD] > 0)
  assert not np.any(new.codes[DEAD])
  assert not np.any(new.codes[:, DEAD])
  assert not np.any(new.products[:, DEAD])
  np.testing.assert_array_equal(
    new.codes[np.ix_(ALIVE, ALIVE)], old.codes[np.ix_(ALIVE, ALIVE)]
  )
  np.testing.assert_array_equal(new.products[:, ALIVE], old.products[:, ALIVE])


def test_revived_atoms_stay(revived):
  """A step that uses none of them neither kills them nor takes them back."""
  _, after = revived
  if not learns(after):
    pytest.skip('a fixed dictionary has no revival')
  # One signal again and again: all but a few atoms rest.
  z = jnp.broadcast_to(after.z[:1, :1, :1], after.z.shape)
  latent, codebook = train(after, z)
  later = after._replace(variables={**after.variables, 'codebook': codebook})
  used = after.apply(latent.codes, method='indices')
  resting = np.setdiff1d(DEAD, used)
  assert len(resting)
  np.testing.assert_allclose(
    stored(later)[resting], stored(after)[resting], rtol=1e-4, atol=1e-5
  )
  assert np.all(codebook['use'][DEAD] > 0.9)
  again = revive(later, after.z)
  np.testing.assert_array_equal(stored(again), stored(later))


def test_revive_limit(case):
  if not learns(case):
    pytest.skip('a fixed dictionary has no revival')
  before = with_dead(case, np.arange(5))
  before = before._replace(module=case.module.clone(revive_limit=2))
  after = revive(before, case.z)
  changed = np.any(stored(before) != stored(after), axis=1)
  assert changed.sum() == 2
  assert not changed[5:].any()
  assert np.sum(after.variables['codebook']['use'] < 1e-3) == 3
