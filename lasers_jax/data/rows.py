"""Batches of the rows of arrays, for what is trained on codes and latents."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from lasers_jax.data.order import Order
from lasers_jax.data.pipeline import check_sizes
from lasers_jax.data.workers import in_order


class RowBatches:
  """Batches of rows: shuffled, endless, by index, as `TrainPipeline` has them.

  Element j of the batch at a step is element step * batch_size + j of the
  shuffled, repeated rows. Process p of P gets the p-th P-th of a batch.

  Args:
    arrays: [n, ...] each, of one n.
    batch_size: rows of the batch of all processes.
    seed: of the order, 0 to 2**32 - 1.
    process_index, process_count: which rows to make.

  Raises InputError where sizes do not fit together.
  """

  def __init__(
    self,
    arrays: Mapping[str, np.ndarray],
    batch_size: int,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
  ):
    check_sizes(batch_size, None, None, process_count)
    self._arrays = dict(arrays)
    lengths = {len(x) for x in self._arrays.values()}
    assert len(lengths) == 1, lengths
    self._order = Order(lengths.pop(), seed)
    self._rows = batch_size // process_count
    self._process = process_index, process_count

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """Returns this process's rows of the batch at `step`."""
    index, count = self._process
    first = (step * count + index) * self._rows
    rows = [self._order.index(first + i) for i in range(self._rows)]
    return {name: x[rows] for name, x in self._arrays.items()}

  def iterate(self, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields batch(start_step), batch(start_step + 1), ... without an end."""
    return in_order(self.batch, itertools.count(start_step))
