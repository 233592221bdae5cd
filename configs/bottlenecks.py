"""The bottlenecks that a config can be asked for, and the weights they need."""

from ml_collections import ConfigDict

from lasers_jax.errors import InputError


def choose(name: str) -> tuple[ConfigDict, ConfigDict]:
  """Returns the sections `bottleneck` and `loss.weights` of a bottleneck.

  The pixel loss weighs 10 because it is a mean over [0, 1], and small.
  """
  if name not in _BOTTLENECKS:
    raise InputError(
      f'the configs know the bottlenecks {", ".join(_BOTTLENECKS)}, '
      f'not {name!r}'
    )
  weights = dict(pixel=10.0, **_WEIGHTS[name])
  return ConfigDict(dict(name=name, **_BOTTLENECKS[name])), ConfigDict(weights)


_BOTTLENECKS = {
  'lasers': dict(
    K=512,
    S=5,
    learning='gradient',  # or 'online', 'fixed'
    gradient='straight_through',  # or 'refit'
    coefficient_bits=8,
    patch=1,
    progressive=False,
    revive_every=50,
    revive_below=0.02,
  ),
  'vq': dict(
    K=512,
    learning='ema',  # or 'loss', which needs the weight codebook=1.0
    decay=0.99,
    revive_every=50,
    revive_below=0.02,
  ),
}
_WEIGHTS = {
  'lasers': dict(dictionary=1.0, commitment=0.25),
  'vq': dict(commitment=0.25),
}
