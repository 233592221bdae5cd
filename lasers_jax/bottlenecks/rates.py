"""Settings with which a bottleneck spends a given number of bits a site.

A bottleneck solves for its own in `at_rate`; the parts common to several are
here. Of several settings that would do, the usual ones of its papers are
chosen, or those that trained best on the validation split of CIFAR-10.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

USUAL_BITS = 10  # of one of several codebooks, at most

Fields = dict[str, Any]


def _no_inner(bits: int, d: int) -> Fields:
  raise ValueError(f'{bits} bits for D = {d}: there is no inner bottleneck')


class Asked(NamedTuple):
  """Holds the rate for which settings are solved.

  Attributes:
    bits: of a site, fixed length.
    d: D, the width of a latent vector.
    sites: of a latent map; the bits of a site may depend on it.
    inner: solves for the bottleneck inside, if there is one: (bits, d) to its
      fields.
  """

  bits: int
  d: int
  sites: int
  inner: Callable[[int, int], Fields] = _no_inner


def fields_at(
  table: Mapping[str, type],
  section: Mapping[str, Any],
  bits: float,
  d: int,
  sites: int,
) -> Fields:
  """Solves for the fields with which a site costs some bits.

  Args:
    table: BOTTLENECKS.
    section: of a config, with the `name` of a bottleneck and maybe an `inner`
      one.
    bits, d, sites: see `Asked`.

  Returns:
    The fields to change in the section, nested as it is.

  Raises:
    ValueError: there are none; the message says why.
  """
  if bits < 1 or bits != int(bits):
    raise ValueError(f'{bits:g} bits a site: must be a whole number from 1')
  inner = _no_inner
  if 'inner' in section:
    inner = functools.partial(fields_at, table, section['inner'], sites=sites)
  return table[section['name']].at_rate(Asked(int(bits), d, sites, inner))


def channel_bits(asked: Asked, minimum: int) -> int:
  """Splits the bits of a site evenly among its D channels.

  Raises:
    ValueError: they do not split into whole bits, `minimum` or more.
  """
  bits, d = asked.bits, asked.d
  if bits % d or bits < minimum * d:
    raise ValueError(
      f'{bits} bits a site are not {minimum} or more whole bits for each of '
      f'D = {d} channels'
    )
  return bits // d
