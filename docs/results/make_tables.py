"""Writes the tables of the documentation from the result files beside it.

  python docs/results/make_tables.py
  python docs/results/make_tables.py --check

A page marks the place of a table by two comments, <!-- table: NAME --> and
<!-- end of table -->; what stands between them is replaced. With --check
nothing is written, and the exit code is 1 where a page and its result files
disagree. Which columns a table has is said in tables.py and its neighbours.
"""

import json
import os
import pathlib
import re
import sys
from typing import Any

import tables
import tables_accelerator
import tables_codebooks
import tables_files
import tables_machines
import tables_papers
import tables_recoding
import tables_restoration
import tables_restored
import tables_speed
from tables import Column, Row

MODULES = (
  tables,
  tables_accelerator,
  tables_codebooks,
  tables_files,
  tables_machines,
  tables_papers,
  tables_recoding,
  tables_restoration,
  tables_restored,
  tables_speed,
)
TABLES = {name: x for module in MODULES for name, x in module.TABLES.items()}
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MARKED = re.compile(
  r'(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)', re.DOTALL
)


def cell(row: Row, column: Column) -> str:
  value: Any = row
  for key in column.key.split('/'):
    value = value.get(key) if isinstance(value, dict) else None
  if value is None:
    return ''
  if callable(column.style):
    return column.style(value)
  text = str(value) if isinstance(value, str) else format(value, column.style)
  return text.replace('-', '−') if isinstance(value, float) else text


def render(name: str, page: pathlib.Path) -> str:
  """Returns a table in Markdown, with a link from the page to its file."""
  table = TABLES[name]
  path = HERE / f'{table.file}.json'
  results = json.loads(path.read_text(encoding='utf-8'))
  stated = isinstance(results, dict) and 'rows' in results
  rows = results[table.key] if stated else results
  lines = [
    [column.title for column in table.columns],
    ['---' for _ in table.columns],
  ]
  for row in table.select(rows):
    lines.append([cell(row, column) for column in table.columns])
  text = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
  link = os.path.relpath(path, page.parent)
  transcribed = stated and 'transcribed' in results
  source = 'transcribed, with protocol' if transcribed else 'whole results'
  return f'\n{text}\n*[{path.name}]({link}): {source}.*\n\n'


def filled(page: pathlib.Path) -> str:
  """Returns the text of a page with its tables as the result files are."""

  def replace(found: re.Match) -> str:
    return found[1] + render(found[2], page) + found[3]

  return MARKED.sub(replace, page.read_text(encoding='utf-8'))


def pages() -> list[pathlib.Path]:
  found = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
  return [page for page in found if MARKED.search(page.read_text('utf-8'))]


def main(words: list[str]) -> int:
  if words not in ([], ['--check']):
    print('python docs/results/make_tables.py [--check]', file=sys.stderr)
    return 2
  stale = [page for page in pages() if filled(page) != page.read_text('utf-8')]
  for page in stale:
    name = page.relative_to(ROOT)
    if words:
      print(f'{name} differs from its result files', file=sys.stderr)
    else:
      page.write_text(filled(page), encoding='utf-8')
      print(f'{name} written')
  return 1 if words and stale else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
