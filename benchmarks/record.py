"""Files of results: rows, and what they were measured on.

A program that is called again with the same file goes on: it measures what the
file lacks. The file is written whole after each row.
"""

import datetime
import json
import os
import subprocess
from typing import Any

import jax

from lasers_jax.core import provenance, storage


def device_line() -> str:
  """Returns the device that JAX uses by default, and its driver."""
  device = jax.devices()[0]
  driver = nvidia_driver() or device.client.platform_version.split('\n')[0]
  return f'{device.device_kind} ({device.platform}), driver {driver}'


def nvidia_driver() -> str | None:
  """Returns the version of the driver of NVIDIA's cards, if there are any."""
  words = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
  try:
    return subprocess.check_output(words, text=True, timeout=30).split()[0]
  except (OSError, subprocess.SubprocessError, IndexError):
    return None


def synchronize_torch() -> None:
  """Waits for all that PyTorch does on a card, if it has one."""
  import torch

  if torch.cuda.is_available():
    torch.cuda.synchronize()


def torch_device() -> str:
  """Returns where PyTorch runs beside JAX: 'cuda' or 'cpu'."""
  return 'cpu' if jax.default_backend() == 'cpu' else 'cuda'


class Record:
  """A file of results; with the path '' nothing is kept.

  Args:
    path: of the JSON file. Rows that it has from an earlier call stay.
    program: the docstring of the program: what was measured, and how.
    device: as `device_line` says it; None asks it.
    settings: what the rows have in common, as they were set.
  """

  def __init__(
    self, path: str, program: str, device: str | None = None, **settings: Any
  ):
    self._path = path
    commit = os.environ.get('COMMIT') or provenance.commit()
    self._head = {
      'command': provenance.command(),
      'date': datetime.date.today().isoformat(),
      'device': device or device_line(),
      'versions': provenance.versions(commit),
      'protocol': {'program': program.strip(), **settings},
    }
    self.rows: dict[str, dict] = {}
    if path and storage.exists(path):
      found = json.loads(storage.read_text(path))
      self.rows = {row['name']: row for row in found['rows']}

  def __contains__(self, name: str) -> bool:
    return name in self.rows

  def add(self, name: str, **fields: Any) -> None:
    """Keeps a row."""
    self.rows[name] = {'name': name, **fields}
    self._write(complete=False)

  def take(self, found: dict) -> None:
    """Takes head and rows of another file; rows of other names stay."""
    rows = {row['name']: row for row in found['rows']}
    self.rows |= rows
    self._head = {k: x for k, x in found.items() if k != 'rows'}
    self.finish()

  def finish(self) -> None:
    """Says that no row is missing."""
    self._write(complete=True)

  def _write(self, complete: bool) -> None:
    if self._path:
      found = {
        **self._head,
        'complete': complete,
        'rows': [*self.rows.values()],
      }
      storage.write_text(self._path, storage.as_json(found))
