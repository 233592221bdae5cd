"""Priors by their words."""

import pytest

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import PRIORS, parse
from lasers_jax.priors.vector.kde import KDE
from lasers_jax.priors.vector.pmfs import PMFS


@pytest.mark.parametrize('name', PRIORS)
def test_a_name_alone_has_the_usual_settings(name):
  assert parse(name) == PRIORS[name]()


def test_settings_follow_after_colons():
  assert parse('pmfs:k=100:variant=around') == PMFS(100, 'around')
  assert parse('kde:bandwidth=0.25') == KDE(0.25)


@pytest.mark.parametrize(
  'text, line',
  [
    ('pmf', "the prior is 'pmf': did you mean pmfs"),
    ('qqq', "is 'qqq': it must be one of pmfs, .*, histogram"),
    ('pmfs:K=3', "pmfs has no setting 'K': it has k, variant"),
    ('normal:k=3', "normal has no setting 'k': it has none at all"),
    ('pmfs:k=many', "pmfs: k is 'many': it must be a whole number, at least 1"),
    ('pmfs:k', "pmfs: k is '': it must be a whole number, at least 1"),
    ('pmfs:k=0', "pmfs: k is '0': it must be a whole number, at least 1"),
  ],
)
def test_what_cannot_be_read_is_one_line(text, line):
  with pytest.raises(InputError, match=line):
    parse(text)
