"""The origin of a result: the commit of the code, versions, the command."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata

from lasers_jax.core import storage

# Of /proc/cpuinfo: what says the model, and how flags of vectors begin.
_CPU = 'model name', 'cpu family', 'model', 'CPU implementer', 'CPU part'
_VECTORS = 'sse', 'ssse', 'avx', 'amx', 'fma', 'f16c', 'asimd', 'sve'


def command() -> str:
  """Returns the command line of this process, as one would type it again."""
  program = os.path.basename(sys.argv[0])
  start = ['python', sys.argv[0]] if program.endswith('.py') else [program]
  return shlex.join([*start, *sys.argv[1:]])


def commit() -> str | None:
  """Returns the commit of the code; None if it is not known."""
  folder, file = os.path.split(os.path.abspath(__file__))
  # A hook or a wrapper may speak of another repository.
  env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}

  def git(*words: str) -> str:
    result = subprocess.run(
      ['git', *words],
      cwd=folder,
      env=env,
      capture_output=True,
      check=True,
      timeout=10,
    )
    return result.stdout.decode(errors='replace').strip()

  try:
    # A package that is installed inside of another checkout is none of it.
    git('ls-files', '--error-unmatch', file)
    return git('describe', '--always', '--dirty', '--abbrev=12') or None
  except (OSError, subprocess.SubprocessError):
    return None


def versions(commit: str | None) -> dict[str, str]:
  """Returns the versions of the software.

  Args:
    commit: of the code, if it is known.
  """
  own = _version('lasers_jax')
  names = 'jax', 'jaxlib', 'flax', 'optax', 'numpy'
  return {
    'lasers_jax': f'{own}, commit {commit}' if commit else own,
    'python': platform.python_version(),
    **{name: _version(name) for name in names},
    'system': f'{platform.system()}, {platform.machine()}',
  }


def processor() -> str:
  """Returns the model of the CPU, and its instructions for vectors."""
  try:
    text = storage.read_text('/proc/cpuinfo')
    lines = text.partition('\n\n')[0].splitlines()
  except OSError:  # of Linux alone
    return f'{platform.machine()} {platform.processor()}'.strip()
  pairs = (line.partition(':') for line in lines)
  facts = {key.strip(): value.strip() for key, _, value in pairs}
  names = [facts[x] for x in _CPU if x in facts] or [platform.machine()]
  # Other flags come and go with the version of the kernel.
  flags = facts.get('flags', facts.get('Features', '')).split()
  vectors = [x for x in sorted(flags) if x.startswith(_VECTORS)]
  return f'{" ".join(names)} ({" ".join(vectors)})'


def _version(package: str) -> str:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:  # Run from a folder of the code.
    return 'not installed'
