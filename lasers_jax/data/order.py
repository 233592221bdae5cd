"""The order of training images, and their random numbers, by index.

Both are pure functions of the seed and the number of an element: the same as
`grain.MapDataset.source(x).seed(seed).shuffle().repeat().random_map(f)` gives,
which the tests compare, so that a run may go on with or without Grain.

The shuffle is a cycle-walking cipher (Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002) of four rounds of Simon (Beaulieu et al.,
eprint.iacr.org/2013/404) with words of half as many bits as numbers have; its
keys are those of C++'s `std::seed_seq`.
"""

import functools
import math

import numpy as np

_ROUNDS = 4
_FEWEST_BITS = 16
_WORD = 2**32 - 1


class Order:
  """The order of the images of a set, epoch by epoch.

  Args:
    length: of the set.
    seed: 0 to 2**32 - 1.
  """

  def __init__(self, length: int, seed: int):
    self._length = length
    # As Grain seeds its steps: by the seed, and how far they are from it.
    self._shuffle = _state(seed, 1)
    self._key = np.random.Philox(_state(seed, 3)).state['state']['key']

  def index(self, element: int) -> int:
    """Returns which image is an element of the endless order."""
    epoch, place = divmod(element, self._length)
    return shuffled(place, self._length, (self._shuffle + epoch) & _WORD)

  def generator(self, element: int) -> np.random.Generator:
    """Returns the random numbers of an element."""
    counter = np.array([0, 0, 0, element], np.uint64)
    return np.random.Generator(np.random.Philox(key=self._key, counter=counter))


def _state(*entropy: int) -> int:
  return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def shuffled(index: int, length: int, seed: int) -> int:
  """Returns where a permutation of [0, length) sends an index."""
  if length == 1:
    return 0
  bits = math.ceil(math.log2(length - 1))
  bits = max(bits + bits % 2, _FEWEST_BITS)
  if bits == _FEWEST_BITS:
    return int(_table(length, seed)[index % 2**bits])
  keys = _keys(seed)
  while True:  # at most four times on average
    index = _encrypt(index, keys, bits // 2)
    if index < length:
      return index


@functools.lru_cache(8)
def _table(length: int, seed: int) -> np.ndarray:
  """Walks the cycles of a small cipher from all indices at once."""
  numbers = np.arange(2**_FEWEST_BITS)
  sent = _encrypt(numbers, _keys(seed), _FEWEST_BITS // 2)
  walk = np.where(numbers < length, numbers, sent)
  while (walk[sent[:length]] >= length).any():
    walk = walk[walk]  # twice as many steps
  return walk[sent[:length]]


def _encrypt(value, keys: tuple[int, ...], bits: int):
  """Encrypts numbers of twice so many bits."""
  mask = 2**bits - 1

  def mixed(x):
    one, two, eight = (
      (x << n | x >> (bits - n)) & mask for n in (1, 2, 8 % bits)
    )
    return one & eight ^ two

  left, right = value >> bits & mask, value & mask
  for first, second in zip(keys[::2], keys[1::2], strict=True):
    left = left ^ mixed(right) ^ first & mask
    right = right ^ mixed(left) ^ second & mask
  return left << bits | right


@functools.lru_cache(64)
def _keys(seed: int) -> tuple[int, ...]:
  """Returns the keys of the rounds, as `std::seed_seq{seed}` generates them.

  C++ standard, [rand.util.seedseq], for four words from one.
  """
  n, word = _ROUNDS, [0x8B8B8B8B] * _ROUNDS

  def scrambled(factor: int, x: int) -> int:
    return factor * (x ^ x >> 27) & _WORD

  for k in range(n):
    i, j = (k + 1) % n, (k + 2) % n
    add = scrambled(1664525, word[k] ^ word[i] ^ word[k - 1])
    more = add + (1 if k == 0 else k + seed if k == 1 else k)
    word[i] = word[i] + add & _WORD
    word[j] = word[j] + more & _WORD
    word[k] = more & _WORD
  for k in range(n):
    i, j = (k + 1) % n, (k + 2) % n
    take = scrambled(1566083941, word[k] + word[i] + word[k - 1] & _WORD)
    less = take - k & _WORD
    word[i] ^= take
    word[j] ^= less
    word[k] = less
  return tuple(word)
