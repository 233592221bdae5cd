"""Returns configs by name, as the flag --config and its keys do."""

from typing import Any

from lasers_jax.cli import config_file
from lasers_jax.errors import InputError, nearest
from lasers_jax.experiment import settings


def config(
  name: str,
  *,
  bottleneck: str | None = None,
  decoder: str | None = None,
  degradation: str | None = None,
  **changes: Any,
) -> dict[str, Any]:
  """Returns a config with all defaults filled in, as nested dictionaries.

      lj.config('cifar10', bottleneck='vq', decoder='gan', steps=1000,
                bottleneck__K=1024, optimizer__learning_rate=1e-3)

  Args:
    name: a config of the package (cifar10, photos, folder, ...) or the path of
      a file; behind a colon its argument, as in --config.
    bottleneck: a name of `presets.bottlenecks`, such as lasers, vq or fsq.
    decoder: parts of `presets.decoders`, such as gan or swycc; it requires a
      `bottleneck`.
    degradation: a name of `degradations.DEGRADATIONS`, such as superres or
      inpaint, for a model that restores images.
    changes: values of keys; two underscores lead into a section:
      section__key=value.

  Raises:
    InputError: there is no such config or key, or a value cannot be used.
  """
  if decoder and not bottleneck:
    raise InputError(
      f"decoder={decoder!r} requires a bottleneck: bottleneck='lasers', say"
    )
  if bottleneck and ':' in name:
    raise InputError(f'{name} names a bottleneck already: {bottleneck}')
  words = '+'.join(x for x in (bottleneck, decoder) if x)
  found = config_file.load(f'{name}:{words}' if words else name).to_dict()
  if degradation:
    found['degradation'] = {'name': degradation}
    found = settings.with_defaults(found)
  for path, value in changes.items():
    _set(found, path.split('__'), value)
  settings.from_config(found)
  return found


def _set(config: dict[str, Any], path: list[str], value: Any) -> None:
  """Changes the value of an existing key."""
  inner = config
  for i, key in enumerate(path):
    if not isinstance(inner, dict) or key not in inner:
      keys = inner if isinstance(inner, dict) else ()
      raise InputError(
        f'the config has no key {"__".join(path[: i + 1])}'
        f'{nearest(key, {x: "__".join([*path[:i], x]) for x in keys})}'
      )
    if i == len(path) - 1:
      inner[key] = value
    inner = inner[key]
