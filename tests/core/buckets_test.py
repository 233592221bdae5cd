"""Paths of three kinds, alike: on a disk, on gs:// and on s3://."""

import os
import threading

import pytest

from lasers_jax.core import storage
from lasers_jax.errors import InputError

BUCKETS = ['gs', 's3']


@pytest.fixture(params=['disk', *BUCKETS])
def root(request, tmp_path):
  """A folder that no other test uses."""
  if request.param == 'disk':
    return str(tmp_path)
  address = request.getfixturevalue(request.param)
  return f'{address}/{request.node.originalname}'


@pytest.fixture(params=BUCKETS)
def bucket(request):
  return request.getfixturevalue(request.param)


def test_files_and_folders(root):
  folder = os.path.join(root, 'a', 'b')
  file = os.path.join(folder, 'file')
  assert not storage.exists(file)
  assert not storage.is_folder(folder)
  assert storage.version(file) is None
  for read in storage.read_bytes, storage.opened, storage.names:
    with pytest.raises(FileNotFoundError, match=file):
      read(file)
  storage.make_folder(folder)
  storage.write_text(file, 'é')
  storage.write_text(os.path.join(folder, 'also'), '')
  assert storage.exists(file)
  assert not storage.is_folder(file)
  assert storage.exists(folder)
  assert storage.is_folder(folder)
  assert storage.is_folder(root)
  assert storage.names(folder) == ['also', 'file']
  assert storage.names(root) == ['a']
  assert storage.read_text(file) == 'é'
  assert storage.read_bytes(os.path.join(folder, 'also')) == b''
  version = storage.version(file)
  assert version == storage.version(file)
  storage.write_text(file, 'another text')
  assert storage.read_text(file) == 'another text'
  assert storage.version(file) not in (None, version)
  storage.remove(file)
  storage.remove(file)
  assert storage.names(folder) == ['also']


# gcsfs hands aiohttp what it has in memory.
large = pytest.mark.filterwarnings('ignore:Sending a large body')


@large
def test_any_part_of_a_file_can_be_read(root):
  data, file = os.urandom(9_000_000), os.path.join(root, 'large.bin')
  with storage.written_whole(file) as opened:
    opened.write(data)
  with storage.opened(file) as opened:
    assert opened.read(10) == data[:10]
    opened.seek(8_000_000)
    assert opened.read(5) == data[8_000_000:8_000_005]
    assert opened.tell() == 8_000_005
    opened.seek(-3, os.SEEK_END)
    assert opened.read() == data[-3:]
    assert opened.read() == b''
    opened.seek(0)
    assert opened.read() == data
  with storage.as_local(file) as copy:
    assert copy.endswith('.bin')
    with open(copy, 'rb') as opened:
      assert opened.read() == data


@pytest.mark.parametrize('end', [b'\r', b'\n', b'\r\n', b'\n\r', b'\n--', b''])
def test_any_bytes_come_back(root, end):
  """Also where an upload ends with what might end one of its parts."""
  file = os.path.join(root, f'{end.hex()}.bin')
  for content in end, b'a' + end, end + b'a' + end:
    with storage.written_whole(file) as writer:
      writer.write(content)
    assert storage.read_bytes(file) == content


@pytest.mark.parametrize('name', ['ä b', 'a+b&c=d', '%25 100%', "it's", 'a#'])
def test_names_come_back(root, name):
  file = os.path.join(root, name)
  if '#' in name and storage.is_remote(root):
    with pytest.raises(InputError, match="'#' may not be in the name"):
      storage.write_text(file, 'x')
    return
  storage.write_text(file, name)
  assert name in storage.names(root)
  assert storage.read_text(file) == name


@pytest.mark.parametrize('size', [10, 9_000_000])
def test_what_fails_leaves_nothing_and_changes_nothing(root, size):
  file = os.path.join(root, str(size))
  for before in None, 'whole':
    with pytest.raises(KeyboardInterrupt), storage.written_whole(file) as half:
      half.write(b'x' * size)
      half.flush()
      raise KeyboardInterrupt
    assert storage.exists(file) == bool(before)
    if before:
      assert storage.read_text(file) == before
    storage.write_text(file, 'whole')


def test_text_is_utf8(root):
  file = os.path.join(root, 'text')
  with storage.written_whole(file, 'w') as opened:
    opened.write('× \udcff\n')
  assert storage.read_bytes(file) == b'\xc3\x97 \\udcff\n'


def test_a_write_may_depend_on_what_is_there(bucket):
  file = f'{bucket}/swapped'
  first = storage.written_if(file, b'first', None)
  assert first == storage.version(file)
  assert storage.written_if(file, b'again', None) is None
  second = storage.written_if(file, b'second', first)
  assert second not in (None, first)
  assert storage.written_if(file, b'third', first) is None
  assert storage.read_bytes(file) == b'second'
  storage.remove(file)
  assert storage.written_if(file, b'fourth', second) is None


def test_one_of_many_writers_is_first(bucket):
  file, won = f'{bucket}/raced', []

  def write(i):
    if storage.written_if(file, b'%d' % i, None):
      won.append(b'%d' % i)

  threads = [threading.Thread(target=write, args=[i]) for i in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert won == [storage.read_bytes(file)]


def test_writing_is_tried_before_it_is_needed(root):
  storage.check_folder(os.path.join(root, 'new'))
  if storage.is_remote(root):
    assert not storage.exists(os.path.join(root, 'new'))
