"""The files of a small VAElight: two of ONNX, of an encoder and a decoder."""

import numpy as np

from tests.pretrained.onnx_files import of_arrays

D, CHANNELS = 2, 64
# Names before a number, the first number, kinds as in `networks.light`, and
# widths but the last.
BRANCHES = {
  'encoder': [
    ('cv', 1, 'h3h3h3', (16, 32, 32, 64, 64)),
    ('cv', 14, '33333', (64, 64, 64, 128)),
  ],
  'decoder': [
    ('c2v', 1, '3333', (8, 16, 32)),
    ('c3v', 1, '33d33', (8, 16, 16, 32)),
    ('c4v', 1, '33d33d33', (8, 16, 16, 32, 64, 64, 64)),
    ('cv', 1, '33d33d33d33', (8, 16, 16, 32) + (64,) * 6),
  ],
}


def drawn(side, rng=None):
  """Returns the arrays of a side by their names; zeros where nothing draws."""
  found, ends = {}, {'encoder': (3, D), 'decoder': (D, 3)}[side]
  for prefix, first, kinds, widths in BRANCHES[side]:
    before = ends[0]
    for i, (kind, width) in enumerate(
      zip(kinds, (*widths, ends[1]), strict=True)
    ):
      size = 3 if kind == '3' else 2
      pair = (before, width) if kind == 'd' else (width, before)
      name = f'{prefix}{first + i}'
      found[f'{name}.weight'] = np.zeros((*pair, size, size), np.float32)
      found[f'{name}.bias'] = np.zeros(width, np.float32)
      before = width
  if rng is not None:
    found = {k: rng.normal(size=x.shape).astype('f4') for k, x in found.items()}
  return found


def files(rng=None):
  """Returns the bytes of both files, by the names that they are released by."""
  names = {'encoder': 'VAEencoder.onnx', 'decoder': 'VAEpreview.onnx'}
  return {name: of_arrays(drawn(side, rng)) for side, name in names.items()}
