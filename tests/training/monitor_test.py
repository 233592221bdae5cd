import builtins
import json
import re
import types

import numpy as np
import pytest

from lasers_jax.training import monitor
from lasers_jax.training.metric_lines import read_metrics
from lasers_jax.training.monitor import Monitor


def run(**changes):
  return types.SimpleNamespace(
    **{
      'steps': 10,
      'batch_size': 8,
      'log_every': 2,
      'tensorboard': False,
      **changes,
    }
  )


def metrics(step):
  return {
    'commitment': 0.5,
    'loss': float(step),
    'psnr': 20.0,
    'usage': 0.75,
    'perplexity': 9.5,
  }


def lines(folder):
  text = (folder / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def write(folder, steps, start=0, **changes):
  with Monitor(str(folder), run(**changes), start) as m:
    for step in steps:
      m.step(step, metrics(step))


def test_metrics_are_written_where_a_line_is_due(tmp_path):
  write(tmp_path, range(1, 8))
  assert [x['step'] for x in lines(tmp_path)] == [2, 4, 6]
  assert lines(tmp_path)[0].items() >= metrics(2).items()
  assert lines(tmp_path)[0].keys() >= {'images_per_second', 'waiting_for_data'}


def test_the_last_step_always_has_a_line(tmp_path):
  write(tmp_path, range(1, 11), log_every=0)
  assert [x['step'] for x in lines(tmp_path)] == [10]


def test_the_log_line(tmp_path, monkeypatch, log):
  now = [100.0]
  monkeypatch.setattr(monitor.time, 'time', lambda: now[0])

  def wait():
    now[0] += 1.0
    return 'batch'

  with Monitor(str(tmp_path), run(), 0) as m:
    assert m.time_waiting(wait) == 'batch'
    now[0] += 3.0
    m.step(1, metrics(1))
    m.step(2, metrics(2))
  # Two steps of 8 images in 4 s, 1 s of them waiting; 8 steps to go.
  assert log == [
    'step 2/10 loss 2 psnr 20 usage 0.75 perplexity 9.5 commitment 0.5 '
    '| 4 images/s, ETA 0:00:16, 25% waiting for data'
  ]


def test_evaluation_is_left_out_of_the_speed(tmp_path, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(monitor.time, 'time', lambda: now[0])
  with Monitor(str(tmp_path), run(), 0) as m:
    m.step(2, metrics(2))
    now[0] += 1000
    m.restart_clock(3)
    now[0] += 1
    m.step(4, metrics(4))
  assert lines(tmp_path)[-1]['images_per_second'] == 8


def test_going_on_repeats_no_step(tmp_path):
  write(tmp_path, range(1, 8))
  write(tmp_path, range(5, 11), start=4)
  assert [x['step'] for x in lines(tmp_path)] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize('half', ['{"step": 4, "lo', '{"step"', '{', '{}\n'])
def test_a_half_written_line_is_dropped(tmp_path, half):
  write(tmp_path, range(1, 3))
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write(half)
  write(tmp_path, range(3, 5), start=2)
  assert [x['step'] for x in lines(tmp_path)] == [2, 4]


def test_a_line_that_lacks_its_end_is_ended(tmp_path):
  write(tmp_path, range(1, 3))
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text().rstrip('\n'))
  write(tmp_path, range(3, 5), start=2)
  assert [x['step'] for x in lines(tmp_path)] == [2, 4]


def test_other_metrics_go_to_the_same_file(tmp_path, log):
  with Monitor(str(tmp_path), run(), 0) as m:
    m.write(3, {'validation/psnr': 21.5})
  assert lines(tmp_path) == [{'step': 3, 'validation/psnr': 21.5}]
  assert log == []


def test_a_terminal_gets_a_progress_bar(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(monitor.sys.stderr, 'isatty', lambda: True)
  write(tmp_path, range(5, 11), start=4)
  shown = capsys.readouterr().err
  assert re.search(r'40%.*4/10', shown)
  assert re.search(r'100%.*10/10', shown)


def test_other_places_get_plain_lines(tmp_path, capsys):
  write(tmp_path, range(1, 11))
  assert '\r' not in capsys.readouterr().err


# clu still asks for the protobuf messages of TensorFlow by their old names.
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_tensorboard_gets_scalars_and_pictures(tmp_path):
  tensorflow = pytest.importorskip('tensorflow')
  loader = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  with Monitor(str(tmp_path), run(tensorboard=True), 0) as m:
    m.step(2, metrics(2))
    m.write_figure(2, 'validation', np.zeros((4, 4, 3), np.uint8))
  events = loader.EventAccumulator(str(tmp_path / 'tensorboard'))
  events.Reload()
  (event,) = events.Tensors('psnr')
  assert event.step == 2
  assert tensorflow.make_ndarray(event.tensor_proto) == 20.0
  assert 'validation' in events.Tags()['tensors']


@pytest.mark.parametrize(
  ('error', 'said'),
  [
    (ModuleNotFoundError('no', name='tensorflow'), 'tensorflow is not instal'),
    (ModuleNotFoundError('no', name='google.proto'), 'google.proto is not in'),
    (ImportError('libx.so: no such file'), 'ImportError: libx.so: no such'),
    (TypeError('Descriptors cannot be created.\nIf'), 'TypeError: Descriptors'),
    (AttributeError('no float_'), 'AttributeError: no float_'),
    (RuntimeError(''), 'RuntimeError:'),
  ],
)
def test_without_a_tensorflow_that_works_one_line_says_so(
  tmp_path, monkeypatch, log, error, said
):
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name.split('.')[0] in ('clu', 'tensorflow'):
      raise error
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without)
  write(tmp_path, [2], tensorboard=True)
  assert len(log) == 2
  assert log[0].startswith(f'no TensorBoard file: {said}')
  assert '\n' not in log[0]
  assert [x['step'] for x in lines(tmp_path)] == [2]
  assert not (tmp_path / 'tensorboard').exists()


@pytest.mark.parametrize('broken', ['write_scalars', 'write_images', 'close'])
def test_a_tensorboard_file_that_fails_is_given_up(
  tmp_path, monkeypatch, log, broken
):
  class Writer:
    def __getattr__(self, name):
      def method(*_):
        if name == broken:
          raise OSError('No space left on device')

      return method

  monkeypatch.setattr(monitor, '_tensorboard_writer', lambda _: Writer())
  with Monitor(str(tmp_path), run(tensorboard=True), 0) as m:
    m.step(2, metrics(2))
    m.write_figure(2, 'validation', np.zeros((4, 4, 3), np.uint8))
    m.step(4, metrics(4))
  assert [x['step'] for x in lines(tmp_path)] == [2, 4]
  assert [x for x in log if not x.startswith('step')] == [
    'no more in the TensorBoard file: No space left on device'
  ]


@pytest.mark.parametrize(
  'damage', [b'\xff\xfe{', b'[1]\n', b'3\n', b'null\n', b'{"step": "a"}\n']
)
def test_damaged_lines_are_passed_over(tmp_path, damage):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 1, "loss": 2.0}\n' + damage)
  assert read_metrics(str(tmp_path)) == [{'step': 1, 'loss': 2.0}]
  write(tmp_path, range(1, 3), start=1)
  assert [x['step'] for x in lines(tmp_path)] == [1, 2]
  assert read_metrics(str(tmp_path / 'none')) == []


def test_advice_is_given_once_until_it_is_followed(tmp_path, log):
  with Monitor(str(tmp_path), run(log_every=1), 0) as m:
    for step, accuracy in enumerate((0.5, 0.99, 0.99, 0.7, 0.99), 1):
      m.step(step, {'loss': 0.0, 'discriminator_accuracy': accuracy})
  lines = [i for i, x in enumerate(log) if 'the discriminator wins' in x]
  assert lines == [2, 6]  # after the lines of steps 2 and 5
