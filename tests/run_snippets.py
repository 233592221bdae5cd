"""Executes the Python snippets of pages, one after the other, with few steps.

  python tests/run_snippets.py README.md

Runs in the current folder and by the `lasers_jax` that is installed.
"""

import pathlib
import re
import sys


def snippets(text: str) -> list[str]:
  """Returns the code of the Python blocks of a page, with few steps."""
  blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  return [block.replace('steps=600', 'steps=2') for block in blocks]


def run(name: str, text: str) -> None:
  """Executes the snippets of a page, each with names of its own."""
  for code in snippets(text):
    exec(compile(code, name, 'exec'), {})


if __name__ == '__main__':
  for path in map(pathlib.Path, sys.argv[1:]):
    run(path.name, path.read_text(encoding='utf-8'))
