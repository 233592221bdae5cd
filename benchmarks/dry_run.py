"""Compiles training steps for TPUs and GPUs; writes docs/results/dry-run.json.

  python benchmarks/dry_run.py                            # all that is missing
  python benchmarks/dry_run.py 'cifar10:lasers v5e:4x4'   # rows by name
  python benchmarks/dry_run.py --list                     # what is missing

Each row is one call of train.py or train_prior.py with --dry_run, in a process
of its own, and is kept as soon as it is done, with its command and commit; rows
that are there are not made again: delete them from the file to have them made.
Needs the compilers: pip install 'lasers_jax[tpu,cuda]'. Of 256 pixels, a row
takes 5 to 12 minutes of one core and up to 13 GiB.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lasers_jax.core import provenance, storage

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / 'docs' / 'results' / 'dry-run.json'
AT_256 = ('--config.data.side=256', '--config.data.resize=256')
MACHINES = {  # and the devices of each
  'v5e:4x4': 16,
  'h100:8': 8,
  'v5e:1x1': 1,
  'v5e:16x16': 256,
  'v5p:2x2x4': 16,
  'v6e:4x4': 16,
}


class Run(NamedTuple):
  """A config, its flags, the images of a device, and where it is compiled.

  Without images of a device the batch is that of the config. A prior has a
  model, with 1,000 classes.
  """

  config: str
  images: int | None = None
  flags: tuple[str, ...] = ()
  fsdp: int = 1
  machines: tuple[str, ...] = tuple(MACHINES)
  model: str = ''
  settings: tuple[str, ...] = ()  # of the prior


BFLOAT16, REMAT = 'dtype=bfloat16', 'remat=True'
AR = Run(
  'prior:ar+L',
  flags=('--config.batch_size=256',),
  machines=('h100:8', 'v5e:16x16'),
  model='imagenet256:vq+gan',
)
FLOW = Run(
  'prior:flow+XL',
  flags=(
    '--config.batch_size=1024',
    '--config.view=quantized',
    '--config.prior.patch=2',
  ),
  machines=('h100:8', 'v5e:16x16'),
  model='imagenet256:kl+gan',
)
RUNS = (
  Run('cifar10:lasers', 32),
  Run('folder:lasers', 8, AT_256),
  Run(
    'folder:lasers',
    8,
    AT_256,
    fsdp=8,
    machines=('v5e:4x4', 'h100:8', 'v5e:16x16'),
  ),
  Run('folder:lasers+gan', 4, AT_256),
  Run('folder:lasers+swycc', 4, AT_256),
  *(
    Run(f'imagenet256:{recipe}', machines=('h100:8', 'v5e:16x16'))
    for recipe in (
      'vq+gan',
      'lasers+gan',
      'kl+gan',
      'ibq+gan',
      'none+gan',
      'none+swycc',
    )
  ),
  AR,
  FLOW._replace(fsdp=8, machines=('v5e:16x16',)),
  FLOW._replace(fsdp=8, settings=(REMAT,), machines=('v5e:16x16',)),
  FLOW._replace(settings=(REMAT,), machines=('h100:8',)),
  AR._replace(settings=(BFLOAT16,), machines=('h100:8',)),
  AR._replace(fsdp=8, settings=(BFLOAT16,), machines=('v5e:16x16',)),
  FLOW._replace(settings=(REMAT, BFLOAT16), machines=('h100:8',)),
  FLOW._replace(fsdp=8, settings=(REMAT, BFLOAT16), machines=('v5e:16x16',)),
)


def commands() -> dict[str, list[str]]:
  """Returns the command of each row by its name, the most wanted first."""
  found = {}
  for machine, devices in MACHINES.items():
    for run in RUNS:
      if machine not in run.machines:
        continue
      name = f'{run.config} {machine}'
      program = 'train_prior.py' if run.model else 'train.py'
      words = [program, f'--config={run.config}', *run.flags]
      if run.model:
        words += [f'--model={run.model}', '--classes=1000']
      if run.images:
        batch = run.images * devices
        words.append(f'--config.batch_size={batch}')
        words.append(f'--config.evaluation.batch_size={batch}')
      if run.fsdp > 1:
        name += f' fsdp={run.fsdp}'
        words.append(f'--config.mesh.fsdp={run.fsdp}')
      for setting in run.settings:
        name += f' {setting}'
        words.append(f'--config.prior.{setting}')
      found[name] = [*words, f'--dry_run={machine}']
  return found


def compile_row(name: str, words: list[str]) -> dict | None:
  """Returns a row; None where it failed in another way than by its size."""
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'row.json'
    done = subprocess.run(
      [sys.executable, *words, f'--dry_run_file={path}'],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    print(f'{name}\n{done.stdout}', flush=True)
    if not path.exists():
      print(done.stderr[-2000:], file=sys.stderr, flush=True)
      return None
    (estimate,) = json.loads(path.read_text())
  command = f'python {" ".join(words)}'
  return {
    'name': name,
    'command': command,
    'commit': provenance.commit(),
    **estimate,
  }


def read() -> dict:
  """Returns the results so far."""
  if FILE.exists():
    return json.loads(FILE.read_text(encoding='utf-8'))
  protocol = {
    'program': 'benchmarks/dry_run.py',
    'what': 'compiled for described devices, run on none; every time is an '
    'estimate of the compiler, or a bound by the peak',
  }
  return {'protocol': protocol, 'rows': []}


def main(words: list[str]) -> int:
  wanted = commands()
  missing = wanted.keys() - {row['name'] for row in read()['rows']}
  if words == ['--list']:
    print('\n'.join(name for name in wanted if name in missing))
    return 0
  if unknown := [word for word in words if word not in wanted]:
    print(f'no row {unknown[0]!r}: see --list', file=sys.stderr)
    return 2
  failed = 0
  for name, flags in wanted.items():
    if name not in missing or (words and name not in words):
      continue
    if row := compile_row(name, flags):
      results = read()  # others may have added to it
      order = list(wanted)
      results['rows'].append(row)
      results['rows'].sort(key=lambda row: order.index(row['name']))
      storage.write_text(str(FILE), storage.as_json(results))
    else:
      failed += 1
  return min(failed, 1)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
