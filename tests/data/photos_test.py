import pytest

from lasers_jax.data import open_source
from lasers_jax.errors import InputError

_HELD_OUT = {'test': ('chelsea', 'flower'), 'validation': ('rocket',)}


def test_photos_train_shares_nothing_with_the_held_out():
  opened = {
    split: open_source('photos', split, options={'held_out': _HELD_OUT})
    for split in ('train', 'validation', 'test', 'all')
  }
  paths = {split: set(source.paths) for split, source in opened.items()}
  assert len(paths['test']) == 2
  assert len(paths['validation']) == 1
  assert len(paths['train']) >= 5
  assert not paths['train'] & (paths['test'] | paths['validation'])
  assert paths['train'] | paths['test'] | paths['validation'] == paths['all']
  assert not any('motorcycle_right' in path for path in paths['all'])
  first = opened['test'][0]
  assert first['image'].shape == (300, 451, 3)
  assert first['label'] == -1


@pytest.mark.parametrize(
  ('split', 'held_out', 'message'),
  [
    ('test', {'test': ('chelse',)}, 'has astronaut.*did you mean chelsea?'),
    ('vall', _HELD_OUT, 'has no split .*train, all, test, validation'),
    ('test', {'test': ()}, "the split 'test' of photos is empty"),
    ('test', {'validation': ('rocket',)}, "no split 'test'"),
  ],
)
def test_photos_errors(split, held_out, message):
  with pytest.raises(InputError, match=message):
    open_source('photos', split, options={'held_out': held_out})


def test_photos_are_no_folder():
  with pytest.raises(InputError, match="'photos' alone, not 'photos:/x'"):
    open_source('photos:/x', 'train')


def test_three_are_held_out_where_nothing_else_is_said():
  names = {
    split: {path.split('/')[-1] for path in open_source('photos', split).paths}
    for split in ('train', 'validation', 'test', 'all')
  }
  assert names['test'] == {'chelsea.png', 'coffee.png'}
  assert names['validation'] == {'rocket.jpg'}
  assert names['train'] == names['all'] - names['test'] - names['validation']


def test_the_fingerprint_is_of_the_names():
  prints = [
    open_source('photos', split, options={'held_out': _HELD_OUT}).fingerprint
    for split in ('test', 'train', 'test')
  ]
  assert prints[0] == prints[2] != prints[1]
  assert prints[0]['count'] == 2
