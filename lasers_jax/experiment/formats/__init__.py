"""Writes models into folders, of this project and of others.

A format of your own is a function, from a model to the files of its folder, and
a line of the table.
"""

import dataclasses
import os
from typing import Any

from lasers_jax.core import storage
from lasers_jax.errors import InputError, unknown
from lasers_jax.experiment import codecs, exported
from lasers_jax.experiment.formats import diffusers, onnx, stablehlo, torch
from lasers_jax.experiment.formats.common import statistics

# By name: (model, ...) -> the contents of files by their names.
FORMATS = {
  'diffusers': diffusers.files,
  'onnx': onnx.files,
  'stablehlo': stablehlo.files,
  'torch': torch.files,
}


def export(
  model: Any,
  folder: str,
  name: str | None = None,
  half: bool = False,
  licence: str = '',
  side: int | None = None,
) -> None:
  """Writes a `TrainedModel` into a folder; see its `export`."""
  if name is not None and name not in FORMATS:
    raise unknown('format', name, FORMATS)
  if side is not None and name != 'stablehlo':
    raise InputError("side is of format='stablehlo' alone: leave it out")
  if name is None:
    _write_ours(folder, model, half, licence)
    return
  if half or licence:
    raise InputError(
      f'half and licence are not of format={name!r}: leave them out'
    )
  folder = storage.absolute(folder)
  if storage.exists(folder) and storage.names(folder):
    raise InputError(f'{folder} is not empty: name another folder')
  given = {} if side is None else {'side': side}
  files = FORMATS[name](model, **given)
  with exported.written_whole(folder) as part:
    for file, content in files.items():
      with storage.written_whole(os.path.join(part, file)) as out:
        out.write(content)


def _write_ours(folder: str, model: Any, half: bool, licence: str) -> None:
  folder = exported.check_target(folder)
  if half:
    variables = exported.halved(model.variables)
    model = dataclasses.replace(model, variables=variables)
  found = exported.Found(
    statistics(model),
    exported.known_results(
      model.folder, model.weights, model.config['bottleneck']
    ),
    exported.known_curve(model.folder, model.weights),
    codecs.states_of(model.folder, model.weights, model.changes),
    licence,
  )
  exported.write(folder, model, found, half)
