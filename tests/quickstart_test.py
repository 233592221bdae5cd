"""The notebook runs, and what it shows comes from running it."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests import run_snippets

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK = ROOT / 'examples' / 'quickstart.ipynb'
TEXT = NOTEBOOK.read_text(encoding='utf-8')
CELLS = run_snippets.cells(TEXT)


def printed():
  """What the cells have printed, as the notebook keeps it."""
  outputs = [output for cell in CELLS for output in cell['outputs']]
  streams = [x for x in outputs if x['output_type'] == 'stream']
  assert {x['name'] for x in streams} == {'stdout'}  # nothing was warned of
  return ''.join(''.join(x['text']) for x in streams)


def masked(text):
  """A text without spaces and numbers, which depend on the machine."""
  return re.sub(r'[\d.,-]+', '#', ''.join(text.split()))


def test_all_cells_were_executed_once_from_top_to_bottom():
  order = [cell['execution_count'] for cell in CELLS]
  assert order == list(range(1, len(CELLS) + 1))
  kinds = {x['output_type'] for cell in CELLS for x in cell['outputs']}
  assert kinds == {'stream', 'display_data'}


def test_the_notebook_is_small_and_names_no_machine():
  assert len(TEXT) < 300_000
  assert not re.search(r'/(tmp|root|home|Users|work)/', TEXT)


@pytest.mark.slow
def test_the_cells_run_in_an_empty_folder_and_print_what_is_kept(tmp_path):
  done = subprocess.run(
    [sys.executable, str(ROOT / 'tests' / 'run_snippets.py'), str(NOTEBOOK)],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'agg'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert masked(done.stdout) == masked(printed())
  assert (tmp_path / 'hopper.lz').stat().st_size > 1_000
