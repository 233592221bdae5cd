"""The bottlenecks that the contract is held for."""

import pytest

from tests.bottlenecks.rows import CODEBOOKS, ROWS, Case, start_row


@pytest.fixture(scope='module', params=ROWS)
def row(request) -> str:
  return request.param


@pytest.fixture(scope='module')
def case(row) -> Case:
  return start_row(row)


@pytest.fixture(scope='module', params=CODEBOOKS)
def book(request) -> Case:
  return start_row(request.param)
