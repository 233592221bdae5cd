"""Processes that meet, as threads, on loopback."""

import contextlib
import random
import socket
import threading
import time

import pytest

from lasers_jax.core import rendezvous
from lasers_jax.core.cluster import Place
from lasers_jax.errors import InputError


@pytest.fixture
def address(monkeypatch):
  """A free one; and everybody is quick."""
  monkeypatch.setattr(rendezvous, '_PAUSE', 0.02)
  monkeypatch.setattr(rendezvous, '_GRACE', 0.3)
  monkeypatch.setattr(rendezvous, 'SILENCE', 0.1)
  monkeypatch.delenv('JAX_COORDINATOR_BIND_ADDRESS', raising=False)
  # Not of those that the system gives to whoever connects: it may take one that
  # was free, and a process that connects to it meets itself.
  for port in random.sample(range(20_000, 32_000), 100):
    with contextlib.suppress(OSError):
      socket.create_server(('', port)).close()
      return f'localhost:{port}'


class started:
  """A process that meets the others in a thread; gives what it said."""

  def __init__(self, address, count, index, seconds=10.0):
    self.index, self.error = index, None
    place = Place(address, count, index)
    self._thread = threading.Thread(target=self._run, args=[place, seconds])
    self._thread.start()

  def _run(self, place, seconds):
    try:
      rendezvous.meet(place, seconds)
    except InputError as error:
      self.error = str(error)

  def waits(self):
    return self._thread.is_alive()

  def end(self):
    self._thread.join(timeout=20)
    assert not self.waits()
    return self.error


def test_all_go_on_when_the_last_has_come(address):
  first = [started(address, 4, i) for i in (1, 2)]
  first.append(started(address, 4, 0))
  time.sleep(0.3)
  assert all(process.waits() for process in first)
  last = started(address, 4, 3)
  assert [process.end() for process in (*first, last)] == [None] * 4
  rendezvous._listen(address).close()  # free for JAX


def test_all_say_who_is_missing(address, log):
  processes = [started(address, 5, i, 0.5) for i in (0, 2, 4)]
  lack = 'processes 1, 3 did not come; start all of them at once'
  for process in processes:
    assert f' s at {address}: {lack}' in process.end()
    assert f'process {process.index} of 5 waited ' in process.error
    line = f'process {process.index} of 5 waits at {address} for processes 1, 3'
    assert log.count(line) == 1


def test_process_0_is_missed(address, log):
  said = started(address, 2, 1, 0.1).end()
  assert said.startswith(f'process 1 of 2 waited 0 s at {address}: process 0 ')
  assert f'process 1 of 2 waits at {address} for process 0' in log


def test_who_dies_is_missing_and_may_come_again(address):
  zero = started(address, 3, 0)
  with contextlib.closing(connect(address)) as dies:
    dies.send({'index': 1, 'count': 3})
    assert dies.receive(1) == {'missing': [2]}
  two = started(address, 3, 2)
  time.sleep(0.2)
  assert zero.waits()
  again = started(address, 3, 1)
  assert [process.end() for process in (zero, two, again)] == [None] * 3


def connect(address):
  """A connection to process 0, once it listens."""
  end = time.monotonic() + 10
  while True:
    with contextlib.suppress(OSError):
      host = rendezvous.split_address(address)
      return rendezvous._Peer(socket.create_connection(host))
    assert time.monotonic() < end


def test_who_belongs_to_another_run_is_told_why(address):
  zero, one = started(address, 3, 0), started(address, 3, 1)
  time.sleep(0.2)
  assert started(address, 2, 2).end() == (
    f'process 2 is none of the run at {address}: it says 2 processes, and '
    'process 0 says 3'
  )
  assert started(address, 3, 1).end().endswith('there is another process 1')
  assert zero.waits()
  assert one.waits()
  assert [started(address, 3, 2).end(), zero.end(), one.end()] == [None] * 3


def test_strangers_are_ignored(address):
  zero = started(address, 2, 0)
  for said in b'GET / HTTP/1.1\r\n\r\n', b'[]\n', b'{"index": "1"}\n', b'':
    stranger = connect(address)
    stranger._socket.sendall(said)
    stranger.close()
  assert zero.waits()
  assert [started(address, 2, 1).end(), zero.end()] == [None] * 2


def test_something_else_that_answers_is_not_process_0(address):
  """Such as JAX, where the run goes on without this process."""
  with socket.create_server(rendezvous.split_address(address)) as other:

    def answer():
      with contextlib.suppress(OSError):
        while True:
          connected, _ = other.accept()
          connected.sendall(b'PRI * HTTP/2.0\r\n\r\n')
          connected.close()

    threading.Thread(target=answer, daemon=True).start()
    said = started(address, 2, 1, 0.2).end()
    other.shutdown(socket.SHUT_RDWR)
  assert 'process 0 does not answer' in said


def test_an_address_in_use_is_named(address):
  with socket.create_server(('', rendezvous.split_address(address)[1])):
    said = started(address, 2, 0).end()
  assert said.startswith(f'process 0 cannot listen at {address}: ')
  assert 'in use' in said


def test_process_0_listens_where_it_is_told(address, monkeypatch):
  port = rendezvous.split_address(address)[1]
  monkeypatch.setenv('JAX_COORDINATOR_BIND_ADDRESS', f'127.0.0.1:{port}')
  with rendezvous._listen('elsewhere:1') as server:
    assert server.getsockname() == ('127.0.0.1', port)


@pytest.mark.parametrize('address', ['node1', 'node1:0', 'a:99999', ':80', ''])
@pytest.mark.parametrize('index', [0, 1])
def test_an_address_is_host_and_port(address, index):
  with pytest.raises(InputError, match=f'{address} must be HOST:PORT'):
    rendezvous.meet(Place(address, 2, index), 1)


def test_an_address_may_be_of_ipv6():
  assert rendezvous.split_address('[fe80::1]:80') == ('fe80::1', 80)


def test_long_lists_are_cut():
  assert rendezvous._listed([3]) == 'process 3'
  assert rendezvous._listed(list(range(23))).endswith(' 19 and 3 more')


def test_a_process_that_meets_itself_tries_again(address, monkeypatch):
  connect, met = socket.create_connection, []

  def connect_to_itself_once(where, timeout):
    if met:
      return connect(where, timeout)
    itself = socket.socket()
    itself.bind(('127.0.0.1', 0))
    itself.connect(itself.getsockname())
    met.append(itself)
    return itself

  monkeypatch.setattr(socket, 'create_connection', connect_to_itself_once)
  processes = [started(address, 2, i) for i in (1, 0)]
  assert [process.end() for process in processes] == [None, None]
  assert met
