"""What is read of a tokenizer."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

SCHEME = 'diffusers:'  # before a folder, where models are named


class Patches(NamedTuple):
  """Says how latents are normalised where this is done in square patches.

  A patch of side p is one vector of p²D numbers: number p²d + pi + j is that of
  channel d at row i and column j of the patch.

  Attributes:
    side: p.
    scale, shift: [p²D]; (x - shift) * scale of such vectors x is normalised.
  """

  side: int
  scale: np.ndarray
  shift: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """Holds a tokenizer as networks of this project.

  Its latents z are in its own space: the mean of a variational one, not scaled.

  Attributes:
    network: the section `network` of a config, which builds both networks.
    params: {'encoder': ..., 'decoder': ...}, Flax parameters of the networks,
      float32. The encoder sees images - 0.5 of images in [0, 1], and the
      decoder gives them, as everywhere in this project.
    bottleneck: the section `bottleneck`: {'name': 'none'} or {'name': 'vq',
      'K': ...}.
    codebook: float32 [K, D]; None without one.
    scale, shift: float32 [D]; (z - shift) * scale is the space of those who
      train on the latents. Ones and zeros where the files say nothing.
    patches: where diffusion models train on normalised patches, as those of
      FLUX.2 do; `scale` and `shift` are then those of all positions of a patch
      together. None for most.
    source: the path of the files.
    hash: SHA-256 of the contents of the files, hexadecimal.
  """

  network: dict[str, Any]
  params: dict[str, Any] = dataclasses.field(repr=False)
  bottleneck: dict[str, Any]
  codebook: np.ndarray | None = dataclasses.field(repr=False)
  scale: np.ndarray
  shift: np.ndarray
  source: str
  hash: str
  patches: Patches | None = None
