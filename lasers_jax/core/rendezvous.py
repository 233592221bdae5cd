"""Waits until all processes of a run are there, and says who is missing.

JAX waits for the others in C++, without a word, and aborts where they do not
come. So they meet before, at the same address: process 0 listens there, each
other one says its index, and process 0 tells all of them who is missing.
"""

import contextlib
import json
import logging
import os
import socket
import time
from typing import Any

from lasers_jax.core.cluster import Place
from lasers_jax.errors import InputError

_PAUSE = 0.5  # seconds between two looks
_GRACE = 5.0  # seconds that the others wait longer than process 0
_LONGEST_LINE = 2**20  # bytes: what is longer comes from no process of ours
SILENCE, REPEAT = 5.0, 30.0  # seconds until a log line, and until the next


def meet(place: Place, seconds: float) -> None:
  """Waits for the other processes of a run.

  Args:
    place: of this process; the address is that of process 0.
    seconds: how long it waits at most.

  Raises:
    InputError: they did not come, or do not belong to one run.
  """
  split_address(place.address)
  with contextlib.ExitStack() as stack:
    if place.index == 0:
      _receive_all(place, _Watch(place, seconds), stack)
    else:
      # Process 0 ends the wait of all, where it is there.
      _report(place, _Watch(place, seconds + _GRACE), stack)


class _Watch:
  """Says who is missing, seldom, and ends the wait."""

  def __init__(self, place: Place, seconds: float):
    self._place, self._seconds = place, seconds
    self._started = time.monotonic()
    self._due = SILENCE

  def look(self, missing: list[int] | None) -> None:
    """Takes who is missing now; None: process 0 is, and who else is unknown."""
    if missing == []:
      return
    passed, place = time.monotonic() - self._started, self._place
    who = f'process {place.index} of {place.count}'
    if passed >= self._seconds:
      raise self.over(missing)
    if passed >= self._due:
      self._due = passed + REPEAT
      lack = 'process 0' if missing is None else _listed(missing)
      logging.info('%s waits at %s for %s', who, place.address, lack)

  def over(self, missing: list[int] | None) -> InputError:
    place, passed = self._place, time.monotonic() - self._started
    lack = 'process 0 does not answer'
    if missing is not None:
      lack = f'{_listed(missing)} did not come'
    return InputError(
      f'process {place.index} of {place.count} waited {passed:.0f} s at '
      f'{place.address}: {lack}; start all of them at once, with the address '
      'of process 0'
    )


def _listed(indices: list[int]) -> str:
  shown = ', '.join(map(str, indices[:20]))
  more = f' and {len(indices) - 20} more' if len(indices) > 20 else ''
  return f'{"process" if len(indices) == 1 else "processes"} {shown}{more}'


def split_address(address: str) -> tuple[str, int]:
  """Returns the host and the port of an address.

  Raises:
    InputError: it is not HOST:PORT.
  """
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise InputError(
      f'JAX_COORDINATOR_ADDRESS={address} must be HOST:PORT, of process 0'
    )
  return host.strip('[]'), int(port)


class _Peer:
  """The other end of a connection; each message is a line of JSON."""

  def __init__(self, connected: socket.socket):
    self._socket, self._received = connected, b''

  def send(self, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
      self._socket.sendall(json.dumps(message).encode() + b'\n')

  def receive(self, timeout: float) -> dict[str, Any]:
    """Returns the next message; an empty one where none comes."""
    self._socket.settimeout(timeout)
    try:
      while b'\n' not in self._received:
        new = self._socket.recv(_LONGEST_LINE)
        if not new or len(self._received) > _LONGEST_LINE:
          return {}
        self._received += new
      line, self._received = self._received.split(b'\n', 1)
      said = json.loads(line)
    except (OSError, ValueError):
      return {}
    return said if isinstance(said, dict) else {}

  def is_open(self) -> bool:
    self._socket.settimeout(0)
    try:
      return bool(self._socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
      return True
    except OSError:
      return False

  def close(self) -> None:
    self._socket.close()


def _receive_all(
  place: Place, watch: _Watch, stack: contextlib.ExitStack
) -> None:
  """As process 0: gathers the others, and tells them who is missing."""
  server = stack.enter_context(_listen(place.address))
  server.settimeout(_PAUSE)
  there: dict[int, _Peer] = {}
  missing, told = list(range(1, place.count)), 0.0
  while missing:
    with contextlib.suppress(TimeoutError):
      peer = _Peer(server.accept()[0])
      stack.callback(peer.close)
      _admit(peer, place, there)
    if time.monotonic() - told < _PAUSE and len(there) < place.count - 1:
      continue
    # Who has gone again (killed, to be started anew) is missing.
    there = {i: peer for i, peer in there.items() if peer.is_open()}
    missing = [i for i in range(1, place.count) if i not in there]
    if not missing:
      server.close()  # JAX listens there when the others are told to go on
    told = time.monotonic()
    _tell(there, {'missing': missing})
    try:
      watch.look(missing)
    except InputError:
      _tell(there, {'over': missing})
      raise


def _tell(there: dict[int, _Peer], message: dict[str, Any]) -> None:
  for peer in there.values():
    peer.send(message)


def _listen(address: str) -> socket.socket:
  """Opens the socket of process 0."""
  bind = os.environ.get('JAX_COORDINATOR_BIND_ADDRESS', '')
  host, port = split_address(bind or address)
  both = not bind and socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both or ':' in host else socket.AF_INET
  try:
    return socket.create_server(
      (host if bind else '', port),
      family=family,
      dualstack_ipv6=both,
      backlog=1024,
    )
  except OSError as error:
    raise InputError(
      f'process 0 cannot listen at {address}: {error.strerror}; choose another '
      'port in JAX_COORDINATOR_ADDRESS or JAX_COORDINATOR_PORT'
    ) from error


def _admit(peer: _Peer, place: Place, there: dict[int, _Peer]) -> None:
  """Takes the word of a process, or tells it why it is not of this run."""
  said = peer.receive(timeout=1)
  index, count = said.get('index'), said.get('count')
  if not isinstance(index, int) or index < 1:
    return peer.close()  # a stranger
  if count != place.count:
    why = f'it says {count} processes, and process 0 says {place.count}'
  elif index in there and there[index].is_open():
    why = f'there is another process {index}'
  else:
    there[index] = peer
    return None
  peer.send({'refused': why})
  return peer.close()


def _report(place: Place, watch: _Watch, stack: contextlib.ExitStack) -> None:
  """As another process: reports to process 0, and hears who is missing."""
  while True:
    try:
      connected = socket.create_connection(split_address(place.address), 5)
    except OSError:
      watch.look(None)
      time.sleep(_PAUSE)
      continue
    peer = _Peer(connected)
    stack.callback(peer.close)
    if connected.getsockname() == connected.getpeername():
      # The system gave this socket the port that it looks for: it met itself,
      # and process 0 could not listen there.
      peer.close()
      continue
    peer.send({'index': place.index, 'count': place.count})
    while said := peer.receive(timeout=5):
      if 'refused' in said:
        raise InputError(
          f'process {place.index} is none of the run at {place.address}: '
          f'{said["refused"]}'
        )
      if 'over' in said:
        raise watch.over(said['over'])
      if not said['missing']:
        return
      watch.look(said['missing'])
    peer.close()
    watch.look(None)
    time.sleep(_PAUSE)
