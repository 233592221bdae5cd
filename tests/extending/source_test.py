"""A source that a user adds is trained on and measured like a folder."""

import numpy as np
import pytest

from lasers_jax.data import SOURCES, DataSettings
from lasers_jax.errors import InputError
from lasers_jax.experiment import evaluate, loop
from tests import tiny


@pytest.fixture(scope='module', autouse=True)
def gradients():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(SOURCES, 'gradients', None)  # which is undone at the end
    from tests.extending import toy_source

    yield toy_source


def _data(**options):
  return DataSettings('gradients:7', tiny.SIDE, options=options)


def test_a_run_trains_on_it_and_is_measured(tmp_path):
  changes = {'data__name': 'gradients:7', 'data__options': {'count': 10}}
  config = tiny.config('', steps=2, **changes)
  state = loop.train_and_evaluate(config, str(tmp_path))
  assert int(state.step) == 2
  results = evaluate.evaluate(str(tmp_path))
  protocol = results['protocol']
  assert (protocol['data'], protocol['count']) == ('gradients:7', 10)
  assert results['psnr']['count'] == 10
  # Another number of images is another list, and is told.
  changes['data__options'] = {'count': 9}
  with pytest.raises(InputError, match='data.options.count'):
    loop.train_and_evaluate(tiny.config('', steps=3, **changes), str(tmp_path))


def test_labels_reach_the_batch(gradients):
  pipeline = _data().train_pipeline(8, 0)
  batch = pipeline.batch(0)
  assert batch['image'].shape == (8, tiny.SIDE, tiny.SIDE, 3)
  # Down the rows (0) or along the columns (1), as the labels say.
  down = np.ptp(batch['image'].astype(int), axis=1).max((1, 2))
  np.testing.assert_array_equal(down == 0, batch['label'] == 1)
  assert set(batch['label']) == {0, 1}


def test_splits_differ_and_options_are_checked():
  prints = [
    _data().open(split).fingerprint['hash'] for split in ('train', 'test')
  ]
  assert prints[0] != prints[1]
  assert len(_data(count=5).open('train')) == 5
  line = 'no option data.options.cout; did you mean data.options.count?'
  with pytest.raises(InputError, match=line):
    _data(cout=5).open('train')
