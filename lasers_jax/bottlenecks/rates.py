"""The settings with which a bottleneck spends a given number of bits a site.

One row a bottleneck. Where several settings would do, the choice is the usual
one of its papers, or what trained best on the validation split of CIFAR-10.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lasers_jax.coding.positions import position_bits

MOST_CODES = 2**18  # of one codebook
MOST_ATOMS = 2048  # of one dictionary
MOST_BITS = 32  # of one number
USUAL_BITS = 10  # of one of several codebooks, at most
CLOSE = 0.98  # share of a rate that meets it, where none does exactly

Fields = dict[str, Any]


class Asked(NamedTuple):
  """What settings are to meet.

  Attributes:
    bits: of a site, fixed length.
    d: D, the width of a latent vector.
    sites: of a latent map; what a site costs may depend on it.
    inner: the section of the config inside the bottleneck's, if there is one.
  """

  bits: int
  d: int
  sites: int
  inner: Mapping[str, Any] | None


def fields_at(
  section: Mapping[str, Any], bits: float, d: int, sites: int
) -> Fields:
  """Solves for the fields that make a site cost so many bits.

  Args:
    section: of a config, with the `name` of a bottleneck and maybe an `inner`
      one.
    bits, d, sites: see `Asked`.

  Returns:
    The fields to change in the section, nested as it is.

  Raises:
    ValueError: none meet it; the message says why.
  """
  if bits < 1 or bits != int(bits):
    raise ValueError(f'{bits:g} bits a site: must be a whole number from 1')
  asked = Asked(int(bits), d, sites, section.get('inner'))
  return SOLVERS[section['name']](asked)


def _one_code(asked: Asked) -> Fields:
  bits = asked.bits
  if 2**bits > MOST_CODES:
    raise ValueError(
      f'{bits} bits a site are 2^{bits} codes, and at most {MOST_CODES:,} fit; '
      'copies of it may meet them (residual, product)'
    )
  return {'K': 2**bits}


def _levels(asked: Asked) -> Fields:
  """Scalars of about 3 bits: 8 levels are near the 5 to 8 of the FSQ paper."""
  _check_number(asked.bits)
  count = max(1, round(asked.bits / 3))
  each, more = divmod(asked.bits, count)
  return {'levels': (2 ** (each + 1),) * more + (2**each,) * (count - more)}


def _bits(asked: Asked) -> Fields:
  _check_number(asked.bits)
  return {'bits': asked.bits}


def _check_number(bits: int) -> None:
  if bits > MOST_BITS:
    raise ValueError(
      f'{bits} bits a site: a code is one number of at most {MOST_BITS} bits; '
      'copies may meet them (product)'
    )


def _channel_bits(asked: Asked, least: int) -> int:
  bits, d = asked.bits, asked.d
  if bits % d or bits < least * d:
    raise ValueError(
      f'{bits} bits a site are not {least} or more whole bits for each of '
      f'D = {d} channels'
    )
  return bits // d


def _integers(asked: Asked) -> Fields:
  return {'limit': 2 ** (_channel_bits(asked, 2) - 1) - 1}


def _rounded(asked: Asked) -> Fields:
  return {'bits': _channel_bits(asked, 1)}


def _residual(asked: Asked) -> Fields:
  counts = _divisors(asked.bits)
  if not counts:
    raise ValueError(f'{asked.bits} bits a site do not split among levels')
  count = _fewest(counts, asked.bits)
  return {'depth': count, 'inner': _inner(asked, asked.bits // count)}


def _product(asked: Asked) -> Fields:
  bits, d = asked.bits, asked.d
  counts = [n for n in _divisors(bits) if d % n == 0]
  if not counts:
    raise ValueError(
      f'{bits} bits a site do not split among groups that divide D = {d}'
    )
  count = _fewest(counts, bits)
  inner = _inner(asked._replace(d=d // count), bits // count)
  return {'groups': count, 'inner': inner}


def _divisors(bits: int) -> list[int]:
  return [n for n in range(2, bits + 1) if bits % n == 0]


def _fewest(counts: list[int], bits: int) -> int:
  """The fewest copies whose codebooks are not larger than usual."""
  usual = [n for n in counts if bits / n <= USUAL_BITS]
  return usual[0] if usual else counts[-1]


def _inner(asked: Asked, bits: int) -> Fields:
  return fields_at(asked.inner, bits, asked.d, asked.sites)


def _masked(asked: Asked) -> Fields:
  """As many of the sites as the bits allow, their positions counted."""
  most = asked.bits * asked.sites
  for bits in (*range(USUAL_BITS, 0, -1), *range(USUAL_BITS + 1, 19)):
    for kept in range(asked.sites, 0, -1):
      cost = position_bits(asked.sites, kept) + kept * bits
      if CLOSE * most <= cost <= most:
        return {'keep': kept / asked.sites, 'inner': _inner(asked, bits)}
  raise ValueError(
    f'{asked.bits} bits a site are more than {asked.sites} sites can spend'
  )


def _lasers(asked: Asked) -> Fields:
  """Few atoms of at most 2048, at 2 or 4 levels inside the pursuit.

  On CIFAR-10, at 2 bits a pixel, 2 bits a coefficient were better than 1, 0,
  or the 6 and more that rounding after the pursuit asks for; with one atom a
  site, 1 bit, its sign, was better than none.
  """
  for s in range(1, asked.d + 1):
    bits = 1 if s == 1 else 2
    k = _most_atoms(asked.bits - s * bits, s)
    if MOST_ATOMS >= k >= 2 * s:
      return {'K': k, 'S': s, 'coefficient_bits': bits, 'pursuit': 'rounded'}
  raise ValueError(
    f'{asked.bits} bits a site are not a few atoms with a bit or two each'
  )


def _most_atoms(bits: int, s: int) -> int:
  """The most atoms of which a set of s costs just so many bits; 0 if none."""
  k = s
  while position_bits(k + 1, s) <= bits and k <= MOST_ATOMS:
    k += 1
  return k if position_bits(k, s) == bits else 0


def _sparse(count: str, value: str, value_bits: int) -> Callable:
  """Codes of (atom, value) pairs: few pairs, of 16 to 4096 atoms each."""

  def solve(asked: Asked) -> Fields:
    for pairs in range(1, asked.d + 1):
      atom_bits = asked.bits / pairs - value_bits
      if 4 <= atom_bits <= 12 and atom_bits == int(atom_bits):
        k = 2 ** int(atom_bits)
        return {'K': k, count: pairs, value: value_bits}
    raise ValueError(
      f'{asked.bits} bits a site are not pairs of an atom (4 to 12 bits) and '
      f'a coefficient of {value_bits} bits'
    )

  return solve


SOLVERS: dict[str, Callable[[Asked], Fields]] = {
  'lasers': _lasers,
  'vq': _one_code,
  'simvq': _one_code,
  'ibq': _one_code,
  'cvq': _one_code,
  'hypervq': _one_code,
  'fsq': _levels,
  'lfq': _bits,
  'bsq': _bits,
  'lattice': _integers,
  'entropy': _integers,
  'residual': _residual,
  'product': _product,
  'mqvae': _masked,
  'scq': _sparse('keep', 'weight_bits', 4),
  'lista': _sparse('keep', 'coefficient_bits', 4),
  'kl': _rounded,
  'wae': _rounded,
  'info_vae': _rounded,
  'rae': _rounded,
  'none': _rounded,
}
