"""The tables of the pages are those of the result files beside them."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
RESULTS = ROOT / 'docs' / 'results'
FILES = sorted(RESULTS.glob('*.json'))


def make_tables(root, *words):
  return subprocess.run(
    [sys.executable, str(root / 'docs' / 'results' / 'make_tables.py'), *words],
    capture_output=True,
    text=True,
  )


@pytest.fixture
def copied(tmp_path):
  """A copy of the pages and their result files, to change."""
  shutil.copytree(ROOT / 'docs', tmp_path / 'docs')
  shutil.copy(ROOT / 'README.md', tmp_path)
  return tmp_path


def test_pages_and_result_files_agree():
  done = make_tables(ROOT, '--check')
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('page', ['README.md', 'docs/results/files.md'])
def test_a_page_that_was_changed_by_hand_is_found_and_mended(copied, page):
  path = copied / page
  right = path.read_text()
  start = right.index('<!-- table: ')
  digit = re.compile(r'\d(?=[^\n]*\|\n)').search(right, start)
  wrong = '1' if digit[0] != '1' else '2'
  path.write_text(right[: digit.start()] + wrong + right[digit.end() :])
  found = make_tables(copied, '--check')
  assert found.returncode == 1
  assert page in found.stderr
  assert make_tables(copied).stdout == f'{page} written\n'
  assert path.read_text() == right


def test_another_number_in_a_file_changes_its_pages(copied):
  path = copied / 'docs' / 'results' / 'cifar10-seeds.json'
  results = json.loads(path.read_text())
  for row in results['rows']:
    if row['bottleneck'] == 'vq' and row['results']:
      row['results']['ssim']['mean'] = 0.12345
  path.write_text(json.dumps(results))
  done = make_tables(copied)
  assert {line.split()[0] for line in done.stdout.splitlines()} == {
    'README.md',
    'docs/papers/lasers.md',
    'docs/results/comparison.md',
  }
  assert '0.1235' in (copied / 'README.md').read_text()


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_result_file_states_its_protocol(path):
  results = json.loads(path.read_text())
  if isinstance(results, dict) and 'rows' in results:
    if 'transcribed' in results:
      assert re.search(r'recorded on 20\d\d-\d\d-\d\d', results['transcribed'])
    elif 'command' in results:  # of `benchmarks/record.py`: all rows alike
      assert 'commit ' in results['versions']['lasers_jax']
    else:
      assert all(row['commit'] and row['command'] for row in results['rows'])
    assert results['protocol']
    assert results['rows']
    return
  rows = results if isinstance(results, list) else [{'results': results}]
  for row in rows:
    if row['results']:
      protocol = row['results']['protocol']
      assert {'data', 'split', 'count', 'weights', 'commit'} <= protocol.keys()
    else:
      assert row['error']


def test_each_result_file_is_in_a_table():
  source = ''.join(path.read_text() for path in RESULTS.glob('tables*.py'))
  for path in FILES:
    assert f"'{path.stem}'" in source, path.name


def test_each_table_stands_on_a_page():
  source = ''.join(path.read_text() for path in RESULTS.glob('tables*.py'))
  names = re.findall(r"^  '([\w-]+)': Table\(", source, re.MULTILINE)
  pages = [ROOT / 'README.md', *(ROOT / 'docs').rglob('*.md')]
  text = ''.join(page.read_text() for page in pages)
  assert len(names) > 20
  for name in names:
    assert f'<!-- table: {name} -->' in text, name
