"""The bottlenecks that a config can be asked for, and the weights they need."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from lasers_jax.errors import InputError, unknown


def choose(name: str, K: int = 512) -> tuple[ConfigDict, ConfigDict]:
  """Returns the sections `bottleneck` and `loss.weights` of a bottleneck.

  A name such as product-fsq makes copies of another than vq. K is for those
  that have a codebook, and for what others are copies of.

  The pixel loss weighs 10 because it is a mean over [0, 1], and small.
  """
  outer, *inner = name.split('-', 1)
  section = {'name': outer, **_known(outer)}
  weights = _WEIGHTS[outer]
  if inner:
    if 'inner' not in section:
      raise InputError(f'{outer} is not made of copies of another: {name!r}')
    section['inner'] = {'name': inner[0], **_known(inner[0])}
    weights = _WEIGHTS[inner[0]]
  section = ConfigDict(section)
  for part in (section, section.get('inner', {})):
    if 'K' in part:
      part.K = K
    for key in [key for key, value in part.items() if value is None]:
      part[key] = placeholder(int)  # a flag may set it
  return section, ConfigDict(dict(pixel=10.0, **weights))


def _known(name: str) -> dict:
  if name not in _BOTTLENECKS:
    raise unknown('the bottleneck', name, _BOTTLENECKS)
  return _BOTTLENECKS[name]


_BOTTLENECKS = {
  'lasers': dict(
    K=512,
    S=5,
    learning='gradient',  # or 'online', 'fixed'
    gradient='straight_through',  # or 'refit'
    coefficient_bits=8,
    pursuit='omp',  # or 'rounded', for up to 4 bits
    patch=1,
    progressive=False,
    sparsity_dropout=0.0,
    revive_every=50,
    revive_below=0.02,
  ),
  'vq': dict(
    K=512,
    learning='ema',  # or 'alternated', or 'loss' with the weight codebook=1.0
    distance='euclidean',  # or 'cosine'
    start='data',  # or 'kmeans'
    assignment='nearest',  # or 'sinkhorn'
    gradient='straight_through',  # or 'rotation'
    affine=0.0,  # 'loss' alone, as is the next; 2 to 10 in the paper
    synchronized=0.0,
    rate=50.0,  # of 'alternated'
    decay=0.99,
    revive_every=50,
    revive_below=0.02,
  ),
  'simvq': dict(K=512),
  'ibq': dict(K=512, entropy_temperature=0.01),
  'cvq': dict(
    K=512,
    distance='cosine',  # or 'euclidean'
    anchors='probrandom',  # or 'closest', 'random'
    decay=0.99,
    revive_every=1,
  ),
  'hypervq': dict(
    K=512,
    curvature=1.0,
    temperature=1.0,
    decay=0.97,
    revive_every=20,
    revive_below=0.1,
    revive_limit=64,
  ),
  'fsq': dict(levels=(8, 8, 8)),
  'lfq': dict(bits=9, temperature=0.01, gamma=1.0),
  'bsq': dict(bits=9, temperature=1.0, gamma=1.0),
  'lattice': dict(K=512, limit=7),
  'entropy': dict(limit=31, step=0.1, max_step_scale=1.0),
  'scq': dict(K=512, penalty=0.1, keep=None, weight_bits=8),
  'lista': dict(
    K=512,
    steps=16,
    penalty=0.1,
    learning='gradient',  # or 'fixed', to the DCT
    keep=None,
    coefficient_bits=8,
  ),
  'kl': dict(bits=None),  # or those of each number, from 1 to 12
  'none': dict(bits=None),  # the same
  'wae': dict(bits=None),
  'info_vae': dict(alpha=0.0, lambda_=100.0, bits=None),
  'rae': dict(bits=None),
}
# Made of copies of another, which `inner` is.
_BOTTLENECKS['residual'] = dict(
  depth=4, dropout=0.0, inner=dict(name='vq', **_BOTTLENECKS['vq'])
)
_BOTTLENECKS['product'] = dict(
  groups=4, inner=dict(name='vq', **_BOTTLENECKS['vq'])
)
# `inner` codes the sites that are kept.
_BOTTLENECKS['mqvae'] = dict(
  keep=0.25, blocks=2, width=64, inner=dict(name='vq', **_BOTTLENECKS['vq'])
)
_WEIGHTS = {
  'lasers': dict(dictionary=1.0, commitment=0.25),
  'vq': dict(commitment=0.25),
  'simvq': dict(codebook=1.0, commitment=0.25),
  'ibq': dict(double=1.0, codebook=1.0, commitment=0.25, entropy=0.05),
  'cvq': dict(codebook=1.0, commitment=0.25),
  'hypervq': dict(),
  'fsq': dict(),
  'lfq': dict(entropy=0.1, commitment=0.25),
  'bsq': dict(entropy=0.1, commitment=0.0),
  'lattice': dict(codebook=1.0, commitment=0.25, size=0.01),
  'entropy': dict(rate=1e-3),
  'residual': dict(commitment=0.25),
  'product': dict(commitment=0.25),
  'mqvae': dict(commitment=0.25),
  'scq': dict(quantization=1.0),
  'lista': dict(latent=1.0),
  'kl': dict(kl=1e-4),
  'none': dict(),
  'wae': dict(mmd=1.0),
  'info_vae': dict(info=1e-4),
  'rae': dict(norm=1e-4),
}
