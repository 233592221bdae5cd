import pytest

from tests.pretrained.tokenizers.damage import kinds, outcomes


@pytest.mark.parametrize('kind', kinds())
def test_damaged_files_are_read_or_refused_and_nothing_runs(kind, tmp_path):
  found, _, most = outcomes(kind, 60, tmp_path)
  assert found['refused'] > 0
  assert most < 2**26
