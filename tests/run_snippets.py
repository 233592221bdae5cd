"""Executes the Python code of pages and notebooks.

  python tests/run_snippets.py README.md examples/quickstart.ipynb

The snippets of a page run one after the other, each with names of its own and
with few steps. The cells of a notebook run as one program, as they stand. Runs
in the current folder and by the `lasers_jax` that is installed.
"""

import json
import pathlib
import re
import sys


def snippets(text: str) -> list[str]:
  """Returns the code of the Python blocks of a page, with few steps."""
  blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  return [block.replace('steps=600', 'steps=2') for block in blocks]


def cells(text: str) -> list[dict]:
  """Returns the code cells of a notebook, from top to bottom."""
  found = json.loads(text)['cells']
  return [cell for cell in found if cell['cell_type'] == 'code']


def program(text: str) -> str:
  """Returns the code of a notebook without the magics of IPython."""
  code = '\n'.join(''.join(cell['source']) for cell in cells(text))
  return re.sub(r'^%.*$', '', code, flags=re.MULTILINE)


def run(name: str, text: str) -> None:
  """Executes the snippets of a page, or the cells of a notebook."""
  notebook = name.endswith('.ipynb')
  for code in [program(text)] if notebook else snippets(text):
    exec(compile(code, name, 'exec'), {})


if __name__ == '__main__':
  for path in map(pathlib.Path, sys.argv[1:]):
    run(path.name, path.read_text(encoding='utf-8'))
