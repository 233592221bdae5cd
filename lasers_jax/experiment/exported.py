"""Writes and reads exported models: folders that need no checkpoint, no data.

config.json        the config, and the number of the format
model.safetensors  averaged parameters and statistics, by flat names such as
                   params/decoder/Conv_0/kernel; its metadata has the step and
                   the hash of the weights. Those of float32 may be stored as
                   float16, and are read as float32
stats.json         statistics of latents and codes, bits per pixel, results,
                   and those of files, where `codec curve` measured them
README.md          the model card
codec*.npz         states of the codec, if any

A folder on a disk takes its name when it is whole. In a bucket, the weights are
written last: without them a folder is no model.
"""

import contextlib
import fnmatch
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lasers_jax import inference
from lasers_jax.core import provenance, storage
from lasers_jax.core.arrays import flat_names
from lasers_jax.core.storage import as_json, one_line, write_text, writing
from lasers_jax.core.trees import merge, without
from lasers_jax.errors import InputError
from lasers_jax.evaluation.rate_distortion import CLASSICAL
from lasers_jax.experiment.settings import with_defaults
from lasers_jax.networks.autoencoder import network_shapes
from lasers_jax.report import model_card
from lasers_jax.training import workdir

WEIGHTS = 'model.safetensors'
STATS = 'stats.json'
CARD = 'README.md'
_FILES = (  # of a model or a prior, as they are written
  workdir.CONFIG,
  workdir.FINGERPRINTS,
  STATS,
  CARD,
  'codec*.npz',
  WEIGHTS,
)


class Found(NamedTuple):
  """Statistics, results and codec states of a model, to write with it."""

  latent: Mapping[str, Any]  # of `measure_latents`, or {'missing': reason}
  results: Mapping[str, Any] | None  # as in results.json
  curve: Mapping[str, Any] | None  # of `known_curve`
  codecs: Sequence[str]  # files of codec states
  licence: str = ''  # of the model; unknown where empty


def is_exported(path: str) -> bool:
  """Returns whether a folder is an exported model."""
  file = os.path.join(path, WEIGHTS)
  return storage.exists(file) and not storage.is_folder(file)


def write(folder: str, model: Any, found: Found, half: bool = False) -> None:
  """Writes a folder whole or not at all; an older export there is replaced.

  Args:
    folder: of `check_target`.
    model: a TrainedModel.
    half: whether its variables have been `halved`, and are stored so.

  Raises:
    InputError: the folder cannot be written.
  """
  bits = model.experiment.bits_per_pixel
  stats = {
    'side': model.experiment.data.side,
    'bits_per_pixel': 'continuous' if bits is None else bits,
    'latent': found.latent,
    'results': found.results,
    'curve': found.curve,
  }
  decoder = model.module.decoder
  about = {
    'step': model.step,
    'parameters': inference.count_parameters(model.variables),
    'decoder': decoder.describe(model.decoding)['decoder'],
    'version': provenance.versions(provenance.commit())['lasers_jax'],
    'licence': found.licence,
  }
  title, complete = os.path.basename(folder), with_defaults(model.config)
  stored = model.variables
  if model.experiment.source.frozen:  # the others are those of the source
    kept = network_shapes(model.module)
    stored = {**stored, 'params': without(stored['params'], kept)}
  with written_whole(folder) as part:
    workdir.write_config(part, model.config)
    metadata = {'weights': model.weights, 'step': str(model.step)}
    write_weights(os.path.join(part, WEIGHTS), stored, metadata, half)
    write_text(os.path.join(part, STATS), as_json(stats))
    card = model_card.card(title, complete, stats, about)
    write_text(os.path.join(part, CARD), card)
    for source in found.codecs:
      _copy(source, os.path.join(part, os.path.basename(source)))


def write_weights(
  path: str, variables: Any, metadata: dict[str, str], half: bool
) -> None:
  """Writes variables by flat names; see `write` and `read`."""
  arrays = {
    name: np.array(x, _stored(x.dtype) if half else x.dtype, order='C')
    for name, x in flat_names(jax.device_get(variables)).items()
  }
  with storage.written_whole(path) as file:
    file.write(save(arrays, metadata))


def halved(variables: Any) -> Any:
  """Rounds variables of float32 to what float16 holds; they stay float32.

  Raises:
    InputError: one is beyond the range of float16.
  """

  def halve(x: jax.Array) -> jax.Array:
    rounded = x.astype(_stored(x.dtype)).astype(x.dtype)
    if not np.isfinite(rounded).all():
      raise InputError('half: a weight is beyond 65504, the largest of float16')
    return rounded

  return jax.tree.map(halve, variables)


def _stored(dtype: np.dtype) -> np.dtype:
  return np.dtype(np.float16) if dtype == np.float32 else dtype


def check_target(folder: str) -> str:
  """Returns the absolute path of a folder that a model may be written to.

  Raises:
    InputError: the folder holds something else than an exported model.
  """
  folder = storage.absolute(folder)
  if storage.is_remote(folder):
    there = storage.names(folder) if storage.is_folder(folder) else []
    # Also of an export that was broken off.
    taken = not all(map(_is_ours, there)) or storage.version(folder) is not None
  else:
    empty = os.path.isdir(folder) and not os.listdir(folder)
    taken = os.path.lexists(folder) and not empty and not is_exported(folder)
  if taken:
    raise InputError(
      f'{folder} exists and is no exported model: name another folder'
    )
  return folder


def _is_ours(name: str) -> bool:
  return any(fnmatch.fnmatch(name, file) for file in _FILES)


def _copy(source: str, target: str) -> None:
  with storage.opened(source) as old, storage.written_whole(target) as new:
    shutil.copyfileobj(old, new)


@contextlib.contextmanager
def written_whole(folder: str) -> Iterator[str]:
  """Yields a folder that takes its name where the block ends without error."""
  if storage.is_remote(folder):
    with tempfile.TemporaryDirectory() as part:
      yield part
      _upload(part, folder)
    return
  above = os.path.dirname(folder)
  token = secrets.token_hex(16)
  part, old = (os.path.join(above, f'.{token}.{x}') for x in ('part', 'old'))
  try:
    with writing(folder, 'name another folder'):
      os.makedirs(part)
      yield part
      if os.path.lexists(folder):
        os.rename(folder, old)
      os.rename(part, folder)
  finally:
    for rest in part, old:
      shutil.rmtree(rest, ignore_errors=True)


def _upload(part: str, folder: str) -> None:
  """Writes the files of a folder to a bucket in place of an older export."""
  new = sorted(os.listdir(part), key=lambda name: name == WEIGHTS)
  old = storage.names(folder) if storage.is_folder(folder) else []
  for name in sorted(old, key=lambda name: name != WEIGHTS):
    if name == WEIGHTS or name not in new:
      storage.remove(os.path.join(folder, name))
  for name in new:
    _copy(os.path.join(part, name), os.path.join(folder, name))


def metadata(path: str) -> dict[str, str]:
  """Returns what a file of weights says of itself.

  `weights` is their hash, `step` that of the run.
  """
  with (
    storage.as_local(path) as copy,
    safe_open(copy, framework='numpy') as file,
  ):
    return file.metadata() or {}


def read(path: str, shapes: Any, frozen: Any) -> tuple[Any, int]:
  """Reads the variables of an exported model, and its step.

  Args:
    path: of the file of weights.
    shapes: the shapes of the variables in the file according to the config.
    frozen: the parameters that are not in the file; {} for none.

  Raises:
    InputError: the file is damaged, or of another model than the config.
  """
  try:
    with (
      storage.as_local(path) as copy,
      safe_open(copy, framework='numpy') as file,
    ):
      about = file.metadata() or {}
      found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    step, weights = int(about['step']), about['weights']
  except InputError:
    raise
  except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'{path} is damaged: {one_line(error)}') from error
  expected = flat_names(shapes)
  for name, array in found.items():
    kind = expected[name].dtype if name in expected else None
    if kind == np.float32 and array.dtype == np.float16:
      found[name] = array.astype(kind)
  for name in sorted(expected.keys() | found.keys()):
    there, here = _describe(found.get(name)), _describe(expected.get(name))
    if there != here:
      raise InputError(
        f'{path} is of another model: {name} is {there} there and {here} in '
        f'{workdir.CONFIG}'
      )
  leaves = [found[name] for name in expected]
  variables = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
  variables = merge(variables, {'params': frozen})
  if inference.weights_hash(variables) != weights:
    raise InputError(
      f'{path} is damaged: its arrays are not those that were exported'
    )
  return variables, step


def known_results(
  folder: str, weights: str, bottleneck: Mapping[str, Any]
) -> dict[str, Any] | None:
  """Reads the results of a model from its folder; None where there are none.

  Args:
    weights: hash of the variables that the results must be of.
    bottleneck: section of the config that the results must be of.
  """
  for found in _measured(folder, 'results.json', 'results'):
    said = found['protocol']
    if (said.get('weights'), said.get('bottleneck')) == (weights, bottleneck):
      return found
  return None


def known_curve(folder: str, weights: str) -> dict[str, Any] | None:
  """Reads what `codec curve` measured, as `known_results` reads results.

  Returns:
    `rows` of the model alone, and their `protocol`.
  """
  for found in _measured(folder, os.path.join('curve', 'curve.json'), 'curve'):
    said, rows = found['protocol'], found.get('rows', [])
    if said.get('weights') == weights:
      own = [row for row in rows if row['codec'] not in CLASSICAL]
      return {'rows': own, 'protocol': said}
  return None


def _measured(folder: str, file: str, key: str) -> Iterator[dict[str, Any]]:
  """Yields what a file in a folder says, and its key in STATS; or neither."""
  for name in (file, STATS):
    try:
      data = storage.read_bytes(os.path.join(folder, name))
    except OSError:
      continue
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
      found = json.loads(data)
      found = found[key] if name == STATS else found
      if hasattr(found['protocol'], 'get'):
        yield found


def _describe(array: Any) -> str:
  if array is None:
    return 'missing'
  return f'{np.dtype(array.dtype).name} {list(array.shape)}'
