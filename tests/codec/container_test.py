import pytest

from lasers_jax.codec import container
from lasers_jax.codec.container import Frame, pack, unpack
from lasers_jax.errors import InputError

FRAME = Frame(b'\1\2\3\4', 300, 7, b'codes...')


@pytest.mark.parametrize('height', [1, 127, 128, 16383, 16384, 2**21 - 1])
@pytest.mark.parametrize('payload', [b'', b'\0\0\0\0'])
def test_what_is_packed_is_unpacked(height, payload):
  frame = Frame(b'\1\2\3\4', height, 5, payload)
  assert unpack(pack(frame)) == frame


def test_the_head_is_short():
  assert len(pack(FRAME._replace(payload=b''))) == 11 + 2 + 1


@pytest.mark.parametrize('side', [0, -1, 2**21])
def test_sides_that_cannot_be(side):
  with pytest.raises(InputError, match='sides are from 1 to 2097151'):
    pack(FRAME._replace(width=side))


def test_every_changed_bit_shows():
  data = pack(FRAME)
  for i in range(8 * len(data)):
    changed = bytearray(data)
    changed[i // 8] ^= 1 << i % 8
    with pytest.raises(InputError, match='damaged|not a file|of version'):
      unpack(bytes(changed))


def test_every_cut_shows():
  data = pack(FRAME)
  for n in range(len(data)):
    with pytest.raises(InputError, match='damaged|not a file|cut short'):
      unpack(data[:n])


@pytest.mark.parametrize(
  'data, line',
  [
    (b'', 'not a file of this codec'),
    (b'PNG?', 'not a file of this codec'),
    (b'LZ\2', 'cut short'),
    (b'LZ\1' + bytes(8), 'of version 1, and this program reads 2'),
    (b'LZ\2' + bytes(9), 'damaged: its checksum'),
  ],
)
def test_what_is_no_file_is_one_line(data, line):
  with pytest.raises(InputError, match=line):
    unpack(data)


@pytest.mark.parametrize(
  'body, line',
  [
    (b'', 'cut short'),
    (b'\x85', 'cut short'),
    (b'\x05', 'cut short'),
    (b'\x00\x05', 'a size that cannot be'),
    (b'\x80\x00\x05', 'a size that cannot be'),
    (b'\x81\x80\x80\x01\x05', 'a size that cannot be'),
  ],
)
def test_sizes_that_no_writer_writes(body, line):
  """Though the checksum fits."""
  with pytest.raises(InputError, match=line):
    unpack(container.head(FRAME.model, body) + body)
