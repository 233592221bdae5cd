"""What signals do: in this process, and to small ones that they end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from lasers_jax.core import signals
from lasers_jax.core.signals import Asked, Listener

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1']


@pytest.fixture(autouse=True)
def no_handler_is_left():
  before = [signal.getsignal(number) for number in signals.ASKING]
  yield
  assert [signal.getsignal(number) for number in signals.ASKING] == before
  assert Listener.active is None


@pytest.mark.parametrize('name', NAMES)
def test_what_can_be_left_is_left(name):
  number = signal.Signals[name]
  with pytest.raises(Asked) as asked, Listener():
    os.kill(os.getpid(), number)
  assert asked.value.number == number


@pytest.mark.parametrize('name', NAMES)
def test_inside_noting_it_is_noted_alone(name):
  number, told = signal.Signals[name], []
  with Listener() as listener, listener.noting(told.append):
    assert listener.number is None
    os.kill(os.getpid(), number)
    assert listener.number == number
    assert told == [number]
  assert listener.number is None  # what was asked is done


def test_what_is_ignored_stays_so():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with Listener() as listener:
      os.kill(os.getpid(), signal.SIGHUP)
      assert listener.number is None
      assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_does_what_it_did_before():
  with (
    pytest.raises(KeyboardInterrupt) as error,
    Listener() as listener,
    listener.noting(),
  ):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
  assert not isinstance(error.value, Asked)


def wait_for(condition):
  end = time.time() + 20
  while not condition():
    assert time.time() < end, 'waited too long'
    time.sleep(0.01)


def test_another_thread_ends_what_the_main_one_does_not_leave(monkeypatch):
  monkeypatch.setattr(signals, 'PATIENCE', 0.1)
  ended = []
  with (
    Listener(lambda *said: ended.append(said)) as listener,
    listener.noting(),
    listener.rescuing('rescue'),
  ):
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: ended)
  assert set(ended) == {(signal.SIGTERM, 'rescue')}


def test_nothing_ends_between_two_steps(monkeypatch):
  monkeypatch.setattr(signals, 'PATIENCE', 0.1)
  ended = []
  with (
    Listener(lambda *said: ended.append(said)) as listener,
    listener.noting(),
  ):
    with listener.rescuing('rescue'):
      os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
  assert not ended


# Else the shell that runs the tests may have Ctrl-C ignored.
TERMINAL = 'import signal; signal.signal(2, signal.default_int_handler)\n'


def start(text: str) -> subprocess.Popen:
  """Starts a program that says 'ready', with Ctrl-C as in a terminal."""
  process = subprocess.Popen(
    [sys.executable, '-c', TERMINAL + text],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  return process


PATIENT = """
import os, signal, time
from lasers_jax.core.signals import Listener
with Listener(print) as listener, listener.noting():
  print('ready', flush=True)
  time.sleep(20)
"""
# Native code, in which no handler runs.
BUSY = """
import hashlib, os
from lasers_jax.core import signals
signals.PATIENCE = 0.2
def end(number, rescue):
  rescue and rescue()
  os._exit(75)
with signals.Listener(end) as listener:
  print('ready', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'', b'', 200_000_000)
"""
LOADING = """
import time
from lasers_jax.core import signals
signals.end_without_traceback()
print('ready', flush=True)
time.sleep(20)
"""


def test_a_second_ctrl_c_ends_a_script_at_once():
  process = start(PATIENT)
  process.send_signal(signal.SIGINT)
  time.sleep(2 * signals._ECHO)
  assert process.poll() is None
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=10) == ('', '')
  assert process.returncode == -signal.SIGINT


def test_the_echo_of_a_launcher_is_no_second_ctrl_c():
  process = start(PATIENT)
  process.send_signal(signal.SIGINT)
  time.sleep(signals._ECHO / 4)
  process.send_signal(signal.SIGINT)
  with pytest.raises(subprocess.TimeoutExpired):
    process.communicate(timeout=1)
  process.kill()
  process.communicate()


@pytest.mark.parametrize('name', NAMES)
def test_native_code_does_not_delay_the_end(name):
  process = start(BUSY)
  time.sleep(0.5)
  process.send_signal(signal.Signals[name])
  process.communicate(timeout=10)
  assert process.returncode == 75


def test_no_traceback_while_modules_load():
  process = start(LOADING)
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=10) == ('', '')
  assert process.returncode == -signal.SIGINT
