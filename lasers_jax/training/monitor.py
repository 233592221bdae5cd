"""Writes log lines, metrics.jsonl, TensorBoard and a progress bar of a run."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from lasers_jax.core.storage import is_remote
from lasers_jax.errors import optional
from lasers_jax.training.adversarial import advice
from lasers_jax.training.metric_lines import open_after

_FIRST = ('loss', 'psnr', 'usage', 'perplexity')


class Monitor:
  """Writes the metrics of a run; only on the process that leads.

  Use it as a context: leaving it closes the files.
  """

  def __init__(self, workdir: str, run: Any, start: int):
    """Opens the files.

    Args:
      run: has steps, batch_size, log_every and tensorboard.
      start: the step that the run goes on from.
    """
    self._run, self._lead = run, jax.process_index() == 0
    self._last_step, self._last_time, self._waited = start, time.time(), 0.0
    self._lines = self._writer = self._bar = None
    self._advised = False
    if not self._lead:
      return
    self._lines = open_after(workdir, start)
    if run.tensorboard:
      self._writer = _tensorboard_writer(os.path.join(workdir, 'tensorboard'))
    if sys.stderr.isatty():
      self._bar = tqdm(
        total=run.steps, initial=start, unit='step', dynamic_ncols=True
      )

  def __enter__(self) -> 'Monitor':
    return self

  def __exit__(self, kind, error, trace) -> None:
    if kind is None:
      self.close()
      return
    with optional('last lines of the metrics'):  # that would hide the error
      self.close()

  def close(self) -> None:
    """Closes the files."""
    self._to_tensorboard('close')
    for part in (self._bar, self._lines):
      if part:
        part.close()

  def flush(self) -> None:
    """Writes what is kept in memory, where the workdir is in a bucket."""
    if self._lines:
      self._lines.flush()

  def time_waiting(self, function: Callable[[], Any]) -> Any:
    """Calls a function that waits for data, and adds up the time."""
    started = time.time()
    result = function()
    self._waited += time.time() - started
    return result

  def step(self, step: int, metrics: dict[str, float]) -> None:
    """Takes the metrics of a step; writes them where a line is due."""
    if self._bar:
      self._bar.update(step - self._bar.n)
    every = self._run.log_every
    if step == self._run.steps or (every > 0 and step % every == 0):
      self._log(step, metrics)

  def _log(self, step: int, metrics: dict[str, float]) -> None:
    """Writes the metrics of a step, and the speed since the last line."""
    now = time.time()
    seconds = max(now - self._last_time, 1e-9)
    done = step - self._last_step
    speed = {
      'images_per_second': done * self._run.batch_size / seconds,
      'waiting_for_data': self._waited / seconds,
    }
    eta = (self._run.steps - step) * seconds / max(done, 1)
    self._last_step, self._last_time, self._waited = step, now, 0.0
    if not self._lead:
      return
    if self._bar:
      self._bar.clear()
    logging.info(_line(step, self._run.steps, metrics, speed, eta))
    line = advice(metrics)
    if line and not self._advised:
      logging.warning(line)
    self._advised = bool(line)  # once each time that it begins to hold
    self.write(step, {**metrics, **speed})

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Writes metrics to metrics.jsonl and TensorBoard alone."""
    if not self._lead:
      return
    self._lines.write({'step': step, **metrics})
    self._to_tensorboard('write_scalars', step, metrics)

  def write_figure(self, step: int, name: str, figure: np.ndarray) -> None:
    """Writes a figure uint8 [H, W, 3] to TensorBoard."""
    self._to_tensorboard('write_images', step, {name: figure[None]})

  def _to_tensorboard(self, method: str, *values: Any) -> None:
    """Calls a method of the writer; one that fails is not used again."""
    writer, self._writer = self._writer, None
    if writer:
      with optional('more in the TensorBoard file'):
        getattr(writer, method)(*values)
        self._writer = writer

  def restart_clock(self, step: int) -> None:
    """Excludes the time before this moment from the speed."""
    self._last_step, self._last_time, self._waited = step, time.time(), 0.0


def parameter_table(params: Any) -> str:
  """Returns a table of parameters: the name, shape and size of each."""
  from clu import parameter_overview

  return parameter_overview.get_parameter_overview(params, include_stats=False)


def _line(step, steps, metrics, speed, eta) -> str:
  names = [n for n in _FIRST if n in metrics]
  names += [n for n in metrics if n not in _FIRST]
  values = ' '.join(f'{n} {metrics[n]:.4g}' for n in names)
  minutes, seconds = divmod(round(eta), 60)
  hours, minutes = divmod(minutes, 60)
  return (
    f'step {step}/{steps} {values} '
    f'| {speed["images_per_second"]:.0f} images/s, '
    f'ETA {hours}:{minutes:02}:{seconds:02}, '
    f'{speed["waiting_for_data"]:.0%} waiting for data'
  )


def _tensorboard_writer(directory: str):
  if is_remote(directory):
    logging.info(
      'no TensorBoard file: the workdir is in a bucket (metrics.jsonl is '
      'written)'
    )
    return None
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  try:
    import tensorflow
    from clu import metric_writers

    tensorflow.config.set_visible_devices([], 'GPU')
    return metric_writers.AsyncMultiWriter(
      [metric_writers.SummaryWriter(directory)]
    )
  except ModuleNotFoundError as error:
    reason = f'{error.name} is not installed'
  except Exception as error:  # of any type: an installation may be broken
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
  logging.info(
    'no TensorBoard file: %s (metrics.jsonl is written; '
    "pip install 'lasers_jax[tensorboard]' adds it)", reason
  )  # fmt: skip
  return None
