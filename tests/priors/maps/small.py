"""Small priors over events, with parameters that are far from their start."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax.priors.maps.layout import Layout, Sets


def pairs(sites=(1, 2), k=4, levels=2, s=2):
  """A code of sets: s of k atoms, each with a level, in a random order."""
  order = np.random.default_rng(3).permutation(k * levels)
  atoms, levels = (x.astype('i4') for x in np.divmod(order, levels))
  group = Sets(tuple(range(s)), atoms, levels)
  return Layout(sites, (len(order),) * s, (group,))


def prior(cls, layout, **fields):
  """Returns a prior, and variables in which nothing is 0."""
  fields = {'width': 16, 'layers': 2, 'heads': 2, 'classes': 3} | fields
  model = cls(sites=layout.sites, layout=layout, **fields)
  model.check()
  view = jnp.zeros((1, *layout.sites, len(layout.sizes)), jnp.int32)
  keys = dict.fromkeys(('params', 'prior'), jax.random.key(0))

  @jax.jit
  def variables():
    start = model.init(keys, view, jnp.zeros(1, jnp.int32), False)
    leaves, tree = jax.tree.flatten(start)
    sizes = np.cumsum([x.size for x in leaves])
    noise = 0.4 * jax.random.normal(jax.random.key(1), (sizes[-1],))
    parts = jnp.split(noise, sizes[:-1])
    pairs = zip(leaves, parts, strict=True)
    return tree.unflatten([x + y.reshape(x.shape) for x, y in pairs])

  return model, variables()


def site_codes(layout):
  """All events of a site: int32 [n, P]."""
  codes = [()]
  for p, size in enumerate(layout.sizes):
    longer = []
    for before in codes:
      legal = layout.legal(p, np.array(before, np.int32))
      values = range(size) if legal is None else np.flatnonzero(legal)
      longer += [(*before, int(v)) for v in values]
    codes = longer
  return np.array(codes, np.int32)


def all_codes(layout):
  """All events of a map, where sites are free: int32 [n, H, W, P]."""
  height, width = layout.sites
  each = site_codes(layout)
  maps = itertools.product(range(len(each)), repeat=height * width)
  chosen = each[np.array(list(maps))]
  return chosen.reshape(len(chosen), height, width, -1)


def random_events(layout, n, seed=0):
  each = site_codes(layout)
  chosen = np.random.default_rng(seed).integers(
    len(each), size=(n, *layout.sites)
  )
  return each[chosen]


def counts(draws, codes):
  """How often each of the codes was drawn; all draws must be of them."""
  rows = {x.tobytes(): i for i, x in enumerate(np.asarray(codes))}
  found = [rows[x.tobytes()] for x in np.asarray(draws)]
  return np.bincount(found, minlength=len(rows))


def chi_square(found, p):
  """Returns the p-value of counts; rare cells are one."""
  from scipy import stats

  expected = p / p.sum() * found.sum()
  rare = expected < 10
  if rare.any():
    found = np.append(found[~rare], found[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
  return stats.chisquare(found, expected).pvalue
