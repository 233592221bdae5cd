"""Vector quantization whose unused codes follow the data.

C. Zheng and A. Vedaldi, "Online clustered codebook", ICCV 2023 (CVQ-VAE).
Unlike the released code, codes start from signals of a first batch, as unused
ones would after the first step; a step of the optimizer comes before that of
the anchors and not after it; a random anchor is of this batch, not of a pool
of earlier ones; and the batch of all devices is one.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax import coding
from lasers_jax.bottlenecks.base import Latent, LookUp
from lasers_jax.coding.anchors import ANCHORS, DISTANCES, anchor_rate
from lasers_jax.core.ranges import Decay, Whole


class CVQ(LookUp):
  """Codes each site with the nearest of K codes; unused codes move to anchors.

  Losses: `codebook`, mean |sg(z) - q|², which reaches the codes alone, and
  `commitment`, mean |z - sg(q)|², which reaches the encoder alone.

  Codes are parameters and change twice in a step: by the optimizer, and by
  C_k + α_k (anchor_k - C_k), with α_k near 1 for a code that is hardly used
  and next to 0 for the others. The forward pass in training updates the use,
  and `revive`, which the trainer calls after each step of the optimizer with
  that step's z, moves the codes; the optimizer's moments stay as they are.

  Attributes:
    K: codes.
    distance: of the look-up and of the anchors: 'cosine' or 'euclidean'.
    anchors: the signals that codes go to: 'closest', 'random', or
      'probrandom', drawn with the softmax of the similarity to the code.
    decay: of the moving average of use.
    revive_every: steps from one move to the anchors to the next.
  """

  CHOICES: ClassVar = {'distance': tuple(DISTANCES), 'anchors': tuple(ANCHORS)}
  loss_weights: ClassVar = {'codebook': 1.0, 'commitment': 0.25}
  held = True

  distance: str = 'cosine'
  anchors: str = 'probrandom'
  decay: Decay = 0.99
  revive_every: Whole = 1

  def setup(self):
    self.check()
    self.codes = self.param('codes', self._draw_codes)
    # From zero, as in the paper: what the first batch does not use moves.
    self.use = self.variable(
      'codebook', 'use', jnp.zeros, (self.K,), jnp.float32
    )

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    latent, use = self._coded(z, train, mask)
    if self.tracks(train):
      self.use.value += (1 - self.decay) * (use - self.use.value)
    return latent

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [...], in [0, K)."""
    nearest = DISTANCES[self.distance].nearest
    return nearest(self._signals(z), self.codes).reshape(z.shape[:-1])

  def initialize(self, z: Array) -> None:
    """Takes signals of a first batch as codes."""
    key = self.make_rng('bottleneck')
    picked = coding.pick_signals(key, self._signals(z), self.K)
    self.put_variable('params', 'codes', picked)

  def revive(self, z: Array) -> None:
    """Moves codes towards their anchors, rarely used ones the most."""
    key, signals = self.make_rng('bottleneck'), self._signals(z)
    rows = ANCHORS[self.anchors](
      key, self.codes, signals, DISTANCES[self.distance]
    )
    rate = anchor_rate(self.use.value, self.decay)[:, None]
    moved = self.codes + rate * (signals[rows] - self.codes)
    self.put_variable('params', 'codes', moved)

  def _draw_codes(self, key: Array) -> Array:
    """As the released code starts: uniform in [-1/K, 1/K]."""
    shape = self.K, self.D
    limit = 1 / self.K
    return jax.random.uniform(key, shape, jnp.float32, -limit, limit)
