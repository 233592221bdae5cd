"""Lines of metrics in a bucket: in parts, whole, in order."""

import types

import pytest

from lasers_jax.core import storage
from lasers_jax.errors import InputError
from lasers_jax.training import metric_lines
from lasers_jax.training.metric_lines import open_after, read_metrics
from lasers_jax.training.monitor import Monitor


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(metric_lines, 'LINES', 3)


def steps(workdir) -> list[int]:
  return [line['step'] for line in read_metrics(workdir)]


def write(workdir, numbers, after=0):
  lines = open_after(workdir, after)
  for step in numbers:
    lines.write({'step': step, 'loss': step / 2})
  lines.close()


def files(workdir) -> list[str]:
  return storage.names(workdir)


def test_lines_are_in_order_over_the_parts(gs_folder):
  assert steps(gs_folder) == []
  write(gs_folder, range(1, 9))
  assert files(gs_folder) == [
    'metrics-1.jsonl', 'metrics-2.jsonl', 'metrics.jsonl'
  ]  # fmt: skip
  assert read_metrics(gs_folder) == [
    {'step': i, 'loss': i / 2} for i in range(1, 9)
  ]
  text = storage.read_text(f'{gs_folder}/metrics.jsonl')
  assert text.count('\n') == 3


@pytest.mark.parametrize('step', range(9))
def test_a_run_goes_on_from_any_step(gs_folder, step):
  write(gs_folder, range(1, 9))
  lines = open_after(gs_folder, step)
  assert steps(gs_folder) == list(range(1, step + 1))
  lines.close()
  write(gs_folder, range(step + 1, 12), after=step)
  assert steps(gs_folder) == list(range(1, 12))


def test_steps_may_come_twice(gs_folder):
  write(gs_folder, [1, 2, 2, 3, 3])
  open_after(gs_folder, 2).close()
  assert steps(gs_folder) == [1, 2, 2]


def test_they_are_written_from_time_to_time(gs_folder, monkeypatch):
  lines = open_after(gs_folder, 0)
  lines.write({'step': 1})
  assert steps(gs_folder) == []
  lines.flush()
  assert steps(gs_folder) == [1]
  monkeypatch.setattr(metric_lines, 'EVERY', 0)
  lines.write({'step': 2})
  assert steps(gs_folder) == [1, 2]


def test_a_store_that_fails_is_asked_again(gs_folder, monkeypatch, log):
  monkeypatch.setattr(metric_lines, 'EVERY', 0)
  lines = open_after(gs_folder, 0)

  def fail(*_):
    raise InputError('no answer')

  with monkeypatch.context() as patch:
    patch.setattr(storage, 'write_text', fail)
    lines.write({'step': 1})
    assert log == ['no answer']
    with pytest.raises(InputError, match='no answer'):
      lines.close()
  lines.write({'step': 2})
  assert steps(gs_folder) == [1, 2]


def test_what_ends_a_run_is_not_hidden(gs_folder, monkeypatch, log):
  def fail(*_):
    raise InputError('no answer')

  run = types.SimpleNamespace(steps=2, log_every=0, tensorboard=False)
  with pytest.raises(KeyError), Monitor(gs_folder, run, 0) as monitor:
    monitor.write(1, {'loss': 0.5})
    monkeypatch.setattr(storage, 'write_text', fail)
    raise KeyError
  assert log == ['no last lines of the metrics: no answer']


def test_parts_are_read_on_a_disk_too(gs_folder, tmp_path):
  write(gs_folder, range(1, 8))
  for name in files(gs_folder):
    (tmp_path / name).write_text(storage.read_text(f'{gs_folder}/{name}'))
  assert steps(str(tmp_path)) == list(range(1, 8))


def test_a_gap_ends_nothing_that_was_before_it(gs_folder):
  write(gs_folder, range(1, 9))
  storage.remove(f'{gs_folder}/metrics-1.jsonl')
  assert steps(gs_folder) == [1, 2, 3]
