"""Files that are whole, whoever writes them."""

import json
import logging
import math
import os
import stat
import subprocess
import sys
import threading

import pytest

from lasers_jax.core import storage
from lasers_jax.core.storage import as_json, held, written_whole

WRITE = """
import os, sys
from lasers_jax.core.storage import written_whole
os.getpid = lambda: 1  # as in any container
path, letter = sys.argv[1:]
for _ in range(200):
  with written_whole(path) as file:
    for _ in range(20):
      file.write(letter.encode() * 200)
      file.flush()
  whole = open(path, 'rb').read()
  assert len(whole) == 4000 and len(set(whole)) == 1, whole[:9]
"""


def test_writers_of_one_number_in_two_processes(tmp_path):
  words = [sys.executable, '-c', WRITE, str(tmp_path / 'file')]
  writers = [
    subprocess.Popen([*words, letter], stderr=subprocess.PIPE, text=True)
    for letter in 'ab'
  ]
  for writer in writers:
    _, log = writer.communicate(timeout=200)
    assert writer.returncode == 0, log
  assert os.listdir(tmp_path) == ['file']


def test_writers_in_two_threads(tmp_path):
  path, faults = tmp_path / 'file', []

  def write(letter):
    try:
      for _ in range(100):
        with written_whole(path, 'w') as file:
          file.write(letter * 5000)
        assert path.read_text() in ('a' * 5000, 'b' * 5000)
    except BaseException as error:
      faults.append(error)

  threads = [threading.Thread(target=write, args=x) for x in 'ab']
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not faults
  assert os.listdir(tmp_path) == ['file']


def test_what_fails_leaves_nothing_and_changes_nothing(tmp_path):
  path = tmp_path / 'file'
  for before in ([], ['file']):
    with pytest.raises(KeyboardInterrupt), written_whole(path) as file:
      file.write(b'half')
      raise KeyboardInterrupt
    assert os.listdir(tmp_path) == before
    path.write_bytes(b'whole')
  with pytest.raises(KeyboardInterrupt), written_whole(path):
    raise KeyboardInterrupt
  assert path.read_bytes() == b'whole'


@pytest.mark.parametrize('mask', [0o022, 0o077, 0o007])
def test_permissions_are_those_that_open_gives(tmp_path, mask):
  before = os.umask(mask)
  try:
    for name, write in ('new', written_whole), ('plain', open):
      with write(tmp_path / name, 'wb') as file:
        file.write(b'x')
  finally:
    os.umask(before)
  new, plain = (stat.S_IMODE((tmp_path / x).stat().st_mode) for x in
                ('new', 'plain'))  # fmt: skip
  assert new == plain
  (tmp_path / 'new').chmod(0o640)
  with written_whole(tmp_path / 'new') as file:
    file.write(b'y')
  assert stat.S_IMODE((tmp_path / 'new').stat().st_mode) == 0o640


def test_a_link_stays_one(tmp_path):
  (tmp_path / 'disk').mkdir()
  for target in ('disk/there', 'disk/not yet'):
    link = tmp_path / 'link'
    link.symlink_to(target)
    with written_whole(link, 'w') as file:
      file.write('new')
    assert link.is_symlink()
    assert (tmp_path / target).read_text() == 'new'
    link.unlink()
  assert len(os.listdir(tmp_path / 'disk')) == 2


def test_names_of_any_length_and_bytes(tmp_path):
  for name in ('x' * 255, os.fsdecode(b'\xff.txt')):
    with written_whole(tmp_path / name) as file:
      file.write(b'x')
    assert (tmp_path / name).read_bytes() == b'x'


def test_text_is_utf8_in_any_locale(tmp_path):
  code = (
    'import sys\nfrom lasers_jax.core.storage import written_whole\n'
    'with written_whole(sys.argv[1], "w") as file:\n'
    '  file.write("\\u00d7 \\u2212 \\udcff")\n'
  )
  env = {**os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0',
         'PYTHONCOERCECLOCALE': '0'}  # fmt: skip
  words = [sys.executable, '-c', code, str(tmp_path / 'file')]
  subprocess.run(words, env=env, check=True)
  assert (tmp_path / 'file').read_text('utf-8') == '× − \\udcff'


def test_one_holds_a_lock_at_a_time(tmp_path):
  inside, most = [], []

  def act():
    for _ in range(50):
      with held(tmp_path / '.lock'):
        inside.append(1)
        most.append(len(inside))
        inside.pop()

  threads = [threading.Thread(target=act) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(most) == 150
  assert max(most) == 1


def test_a_disk_without_locks_is_said(tmp_path, monkeypatch, caplog):
  def fail(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(storage.fcntl, 'flock', fail)
  with caplog.at_level(logging.WARNING), held(tmp_path / '.lock'):
    pass
  assert 'cannot be locked: Operation not supported' in caplog.text


def test_results_are_json():
  found = {'a': [1.5, math.nan, (math.inf, 'x')], 'b': {'c': -math.inf}}
  text = as_json(found)
  assert json.loads(text, parse_constant=pytest.fail) == {
    'a': [1.5, None, [None, 'x']],
    'b': {'c': None},
  }


def test_folders_are_made_listed_and_read(tmp_path):
  folder = str(tmp_path / 'a' / 'b')
  storage.make_folder(folder)
  storage.write_text(f'{folder}/second', 'é')
  storage.write_text(f'{folder}/first', '')
  assert storage.names(folder) == ['first', 'second']
  assert storage.is_folder(folder)
  assert not storage.is_folder(f'{folder}/first')
  assert storage.exists(f'{folder}/first')
  assert not storage.exists(f'{folder}/third')
  assert storage.read_text(f'{folder}/second') == 'é'
  with storage.opened(f'{folder}/second') as file:
    assert file.read() == 'é'.encode()
