"""One run at a time, on disks and in buckets."""

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from lasers_jax.core import storage
from lasers_jax.errors import InputError, TrainingError
from lasers_jax.training import lease
from lasers_jax.training.lease import hold
from tests import tiny

HERE = lease._machine()
DEAD = 2**22 + 7  # above the numbers that processes get


@pytest.fixture(params=['disk', 'disk without locks', 'gs'])
def workdir(request, tmp_path, monkeypatch):
  if request.param == 'gs':
    return request.getfixturevalue('gs_folder')
  if request.param == 'disk without locks':

    def flock(*_):
      raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', flock)
  return str(tmp_path)


@pytest.fixture
def locked(workdir, tmp_path):
  """Whether the disk says which processes of this machine are at work."""
  found = os.open(tmp_path / 'x', os.O_CREAT | os.O_RDWR)
  try:
    fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return not storage.is_remote(workdir)
  except OSError:
    return False
  finally:
    os.close(found)


def written(workdir, **changes):
  """Writes the lease of a run that was killed a moment ago."""
  now = time.time()
  found = {**HERE, 'pid': DEAD, 'token': 'x', 'start': now - 9.0, 'seen': now}
  found.update(changes)
  text = json.dumps(found)
  storage.write_text(os.path.join(workdir, '.lock'), text)


def read(workdir):
  return json.loads(storage.read_text(os.path.join(workdir, '.lock')))


def take(workdir):
  """Holds the lease for a moment, in which the lease says so."""
  with hold(workdir):
    assert read(workdir)['pid'] == os.getpid()
  assert read(workdir) == {}


def test_one_holds_it_and_is_named(workdir):
  with hold(workdir) as held:
    with pytest.raises(InputError) as error:
      take(workdir)
    said = str(error.value)
    assert f'another process is training in {workdir} (process ' in said
    assert f'process {os.getpid()} of {HERE["host"]}, since 20' in said
    assert '; wait for it, end it, or choose another --workdir' in said
    assert 'if it was killed, try again in 1' in said
    held.check()
  take(workdir)
  with pytest.raises(KeyError), hold(workdir):
    raise KeyError
  take(workdir)


def test_a_killed_run_of_this_machine_is_followed_at_once(workdir, log):
  written(workdir)
  take(workdir)
  assert any(f'was held by process {DEAD} of' in line for line in log)


def test_a_container_that_starts_again_has_the_same_number(workdir):
  written(workdir, pid=os.getpid())
  take(workdir)


@pytest.mark.parametrize(
  'changes',
  [
    dict(host='other', kernel='of another machine'),
    dict(kernel='of a machine of the same name'),
    dict(processes='of another container'),
    dict(pid=os.getppid()),
  ],
)
def test_a_run_that_may_be_alive_is_waited_for(workdir, locked, changes):
  """A lock of a disk is held by the living of all containers of a machine."""
  written(workdir, **changes)
  if locked and 'kernel' not in changes:
    take(workdir)
    return
  with pytest.raises(InputError, match=r'try again in 1[78]\d s'):
    take(workdir)
  written(workdir, **changes, seen=time.time() - 170.0)
  with pytest.raises(InputError, match=r'try again in (9|10) s'):
    take(workdir)
  written(workdir, **changes, seen=time.time() - 181.0)
  take(workdir)


@pytest.mark.parametrize('text', ['', '{}', '[1]', '{"host": 3}'])
def test_what_is_no_lease_is_free(workdir, text):
  storage.write_text(os.path.join(workdir, '.lock'), text)
  take(workdir)


def test_it_is_renewed_and_given_back(workdir, monkeypatch):
  monkeypatch.setattr(lease, 'EVERY', 0.05)
  with hold(workdir):
    first = read(workdir)
    end = time.time() + 10
    while read_or_first(workdir, first)['seen'] == first['seen']:
      assert time.time() < end
      time.sleep(0.02)
  assert read(workdir) == {}


def read_or_first(workdir, first):
  """A lease on a disk is rewritten in its place."""
  with contextlib.suppress(ValueError):
    return read(workdir)
  return first


def test_who_lost_it_saves_nothing(gs_folder, monkeypatch, log):
  monkeypatch.setattr(lease, 'EVERY', 0.05)
  with hold(gs_folder) as held:
    written(gs_folder, token='of another')
    held._thread.join(10)
    with pytest.raises(TrainingError, match='another process has taken'):
      held.check()
  assert read(gs_folder)['token'] == 'of another'
  assert any('has taken' in line for line in log)


def test_a_store_that_fails_for_a_while_is_said(gs_folder, monkeypatch, log):
  monkeypatch.setattr(lease, 'EVERY', 0.05)
  swap, replies = storage.written_if, [InputError('no answer'), None, None]
  first = []

  def failing(path, data, known):
    first.append(data)
    reply = replies.pop(0) if len(first) > 1 and replies else 0
    if isinstance(reply, Exception):
      raise reply
    done = swap(path, data, known)
    return done if reply == 0 else None  # written, and the answer lost

  monkeypatch.setattr(storage, 'written_if', failing)
  with hold(gs_folder) as held:
    end = time.time() + 10
    while len(first) < 3:
      assert time.time() < end
      time.sleep(0.02)
    held.check()
  assert log[0].endswith('is not renewed: no answer')


def test_one_of_many_takes_it(gs_folder):
  held, refused = [], []
  start, end = threading.Barrier(5), threading.Barrier(5)

  def act():
    start.wait()
    try:
      with hold(gs_folder):
        held.append(1)
        end.wait()
    except InputError:
      refused.append(1)
      end.wait()

  threads = [threading.Thread(target=act) for _ in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(held), len(refused)) == (1, 4)


HOLD = """
import sys, time
from lasers_jax.training.lease import hold
with hold(sys.argv[1]):
  print('held', flush=True)
  time.sleep(100)
"""


def test_a_killed_process_lets_go(tmp_path, gs_folder):
  for workdir in str(tmp_path), gs_folder:
    words = [sys.executable, '-c', HOLD, workdir]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'held\n'
    with pytest.raises(InputError, match=f'process {process.pid} of'):
      take(workdir)
    process.kill()
    process.communicate()
    take(workdir)


def test_a_run_says_who_trains(pictures, tmp_path):
  from lasers_jax.experiment import loop

  with hold(str(tmp_path)), pytest.raises(InputError, match='is training in'):
    loop.train_and_evaluate(tiny.config(pictures), str(tmp_path))
