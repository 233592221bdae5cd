"""Makes result files of the documentation again, one command after the other.

  python benchmarks/suite.py --list
  python benchmarks/suite.py comparison/seed-1 longer

The words choose rows of suite_rows.py by the start of their names; without
words, all. A row is a few commands, which run in --runs, and a file of
docs/results that their numbers go into, with commands and protocol. Rows that
are done are passed over, and a run that was stopped goes on, when the program
is called again. A row that fails does not stop the others; the exit code is
then 1. On an accelerator rows are longer, and the result file names the card.
"""

import argparse
import glob
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import suite_rows
from record import Record
from suite_rows import Row

from lasers_jax.evaluation.rate_distortion import CLASSICAL

ROOT = Path(__file__).resolve().parents[1]
NAMED = (  # fields by which the rows of a result are told apart
  'model',
  'prior',
  'bottleneck',
  'asked_bits_per_pixel',
  'codec',
  'setting',
)
AGAIN = 75  # what a program ends with that was stopped and can go on
PROGRAMS = {
  'lasers-jax': [
    sys.executable,
    '-c',
    'from lasers_jax.cli.main import main; main()',
  ],
  'python': [sys.executable],
}


def device() -> str:
  """Returns the device that JAX uses, and leaves it to the rows."""
  words = [sys.executable, '-c', 'import record; print(record.device_line())']
  return subprocess.check_output(words, text=True, cwd=ROOT / 'benchmarks')


def written(row: Row, given: argparse.Namespace) -> list[str]:
  """Returns the commands of a row with its folders and its steps."""
  steps = row.steps[0] if '(cpu)' in given.device else row.steps[-1]
  return [x.format(runs=given.runs, steps=steps) for x in row.commands]


def run(commands: list[str]) -> bool:
  """Runs commands until one fails; returns whether none did."""
  for command in commands:
    print(f'$ {command}', flush=True)
    name, *words = shlex.split(command)
    words = [y for x in words for y in sorted(glob.glob(x)) or [x]]
    code = AGAIN
    while code == AGAIN:
      code = subprocess.run([*PROGRAMS[name], *words], check=False).returncode
    if code:
      return False
  return True


def collect(row: Row, commands: list[str], given: argparse.Namespace) -> None:
  """Puts what a row has found into its result file, in place of older rows.

  A file of a program in this folder has named rows already. What `compare`,
  `sample` or `codec curve` leaves becomes a row for each of its rows, but for
  codecs that others have made, which a curve is beside.
  """
  path = os.path.join(given.results, f'{row.file}.json')
  record = Record(path, str(__doc__), given.device)
  text = Path(row.found.format(runs=given.runs)).read_text('utf-8')
  found: Any = json.loads(text)
  if 'command' in found:
    record.take(found)
    return
  rows = found if isinstance(found, list) else found['rows']
  told = {'commands': commands, 'device': given.device, **row.told}
  if isinstance(found, dict) and 'protocol' in found:
    told['protocol'] = found['protocol']
  for one in rows:
    if one.get('codec') in CLASSICAL:
      continue
    names = [str(one[x]) for x in NAMED if one.get(x) is not None]
    record.add(' '.join([row.name, *names]), **told, **one)
  record.finish()


def make(row: Row, given: argparse.Namespace) -> bool:
  """Runs a row that is not done; returns whether it is now."""
  commands = written(row, given)
  path = Path(given.runs, 'done.json')
  done = json.loads(path.read_text('utf-8')) if path.exists() else {}
  if done.get(row.name) == commands:
    return True
  print(f'--- {row.name}', flush=True)
  if not run(commands):
    print(f'{row.name} failed', file=sys.stderr, flush=True)
    return False
  collect(row, commands, given)
  done[row.name] = commands
  path.write_text(json.dumps(done, indent=2), 'utf-8')
  return True


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('rows', nargs='*', help='first letters of their names')
  parser.add_argument('--runs', default='runs/suite', help='folder of all runs')
  parser.add_argument('--results', default='docs/results')
  parser.add_argument('--list', action='store_true', help='and run nothing')
  return parser.parse_args()


def main() -> None:
  given = parse()
  chosen = [
    x
    for x in suite_rows.ROWS
    if not given.rows or x.name.startswith(tuple(given.rows))
  ]
  given.device = '(cpu)' if given.list else device().strip()
  if given.list:
    for row in chosen:
      print(row.name, f'-> {row.file}.json')
      print(*(f'  {x}' for x in written(row, given)), sep='\n')
    return
  # The command that runs ends with this program.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(AGAIN))
  os.makedirs(given.runs, exist_ok=True)
  os.makedirs(given.results, exist_ok=True)
  results = [make(row, given) for row in chosen]
  sys.exit(0 if chosen and all(results) else 1)


if __name__ == '__main__':
  main()
