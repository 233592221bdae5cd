import unicodedata

import pytest

from lasers_jax.data.listing import Listing
from lasers_jax.data.splits import cut, split_by_hash, split_named
from lasers_jax.errors import InputError

_USUAL = {
  'train': 'train training trn trains trainset train_set TrainSet train2017 '
  'train-images images_train my_train 01_train train_A traindata',
  'validation': 'validation val valid vals validate dev devel development '
  'val2017 valset val_set imgs_val vld',
  'test': 'test testing tst tests testset test_set TestSet test2015 test_b '
  'test-images eval evaluation',
}


def _forms(name):
  return {name, name.upper(), name.lower(), name.capitalize()}


@pytest.mark.parametrize(
  ('name', 'split'),
  [(name, split) for split in _USUAL for name in _USUAL[split].split()],
)
def test_usual_names_in_any_case(name, split):
  assert {split_named(form) for form in _forms(name)} == {split}
  wide = ''.join(chr(ord(x) + 0xFEE0) if x.isalpha() else x for x in name)
  assert split_named(wide) == split


def test_a_capital_begins_a_word():
  assert split_named('trainA') == 'train'
  assert split_named('testB') == 'test'


@pytest.mark.parametrize(
  'name',
  'cat pretrain strain protest testament valley devices bullet_train trainval '
  'train_val DIV2K_train_HR test_dev split1 extra unlabeled 2017'.split(),
)
def test_other_names_are_no_split(name):
  assert split_named(name) is None


@pytest.mark.parametrize(
  'name', ['\u00e9t\u00e9/\u1e69.png', '\ud55c/\uac00.png', 'a.png']
)
def test_the_hash_does_not_see_the_unicode_form(name):
  forms = {unicodedata.normalize(form, name) for form in ('NFC', 'NFD')}
  assert len({split_by_hash(form) for form in forms}) == 1


def test_the_hash_gives_a_tenth_each():
  splits = [split_by_hash(f'{i}.png') for i in range(10_000)]
  assert 900 < splits.count('test') < 1100
  assert 900 < splits.count('validation') < 1100
  # These are the splits of runs that there are.
  assert [split_by_hash(x) for x in ('000.png', 'a/b.png')] == [
    'train', 'train'
  ]  # fmt: skip


def _listing(*folders, count=50):
  files = [f'{folder}/{i}.png' for folder in folders for i in range(count)]
  first = sorted({folder.split('/')[0] for folder in folders})
  return Listing(sorted(files), [], first)


def _members(listing, split):
  part = cut('/set', listing, split)
  base = f'{part.base}/' if part.base else ''
  inside = [x[len(base) :] for x in listing.files if x.startswith(base)]
  return {base + x for x in inside if part.belongs(x)}


def _assert_disjoint(listing, whole):
  splits = [_members(listing, x) for x in ('train', 'validation', 'test')]
  assert all(splits)
  assert set.union(*splits) == whole
  assert sum(map(len, splits)) == len(whole)
  return splits


@pytest.mark.parametrize(
  'folders',
  [
    ('Train', 'Val', 'Test'),
    ('TRAINING', 'VALIDATION', 'TESTING'),
    ('trn', 'dev', 'tst'),
    ('train2017', 'val2017', 'test2017'),
  ],
)
def test_folders_of_usual_names_are_the_splits(folders):
  listing = _listing(*folders)
  splits = _assert_disjoint(listing, set(listing.files))
  for folder, members in zip(folders, splits, strict=True):
    assert {path.split('/')[0] for path in members} == {folder}
  # A folder may be named as it is, too.
  assert _members(listing, folders[0]) == splits[0]
  assert _members(listing, folders[1].lower()) == splits[1]


@pytest.mark.parametrize(
  ('folders', 'missing'),
  [
    (('train', 'test'), ['validation']),
    (('Train', 'Val'), ['test']),
    (('training',), ['validation', 'test']),
  ],
)
def test_what_has_no_folder_is_held_out_of_train(folders, missing):
  listing = _listing(*folders, count=100)
  splits = _assert_disjoint(listing, set(listing.files))
  names = 'train', 'validation', 'test'
  for name, members in zip(names, splits, strict=True):
    if name in missing:
      assert {path.split('/')[0] for path in members} == {folders[0]}
      assert 3 <= len(members) <= 20
      said = cut('/set', listing, name).said
      assert f'no folder for {" or ".join(missing)}' in said
      assert f'of {folders[0]} is held out' in said
  # What is held out does not depend on how the folder is called.
  other = _listing('x', count=100)
  part = cut('/set', listing, missing[0])
  chosen = {x.split('/')[1] for x in _members(listing, missing[0])}
  assert chosen == {
    x.split('/')[1] for x in other.files if part.belongs(x.split('/')[1])
  }


def test_without_folders_of_splits_a_hash_decides():
  listing = _listing('cat', 'dog', 'bullet_train', 'emu')
  splits = _assert_disjoint(listing, set(listing.files))
  assert all(split_by_hash(path) == 'test' for path in splits[2])
  assert "'bullet_train': taken for no split" in cut('', listing, 'train').said


def test_all_is_the_whole_tree():
  for listing in _listing('train', 'Training'), _listing('a/train', 'a/test'):
    assert _members(listing, 'all') == set(listing.files)


@pytest.mark.parametrize(
  ('folders', 'split', 'said'),
  [
    (('Train', 'training', 'test'), 'train', "'Train' and 'training' are both"),
    (('Train', 'training', 'val'), 'test', "'Train' and 'training' are both"),
    (('train', 'val', 'dev'), 'validation', "'dev' and 'val' are both"),
    (('trainA', 'trainB'), 'train', 'say data.train=trainA'),
    (('test', 'val'), 'train', "no split 'train': it has test, val, all"),
    (('train', 'test'), 'trian', "no split 'trian': it has test, train, all"),
    (('cat', 'dog'), 'val', "no split 'val': it has train, validation, test"),
    (
      ('DIV2K_train_HR', 'DIV2K_valid_HR'),
      'validation',
      "'DIV2K_train_HR', 'DIV2K_valid_HR' may be splits, and none is called "
      "'validation': rename the folder, or say data.validation=DIV2K_valid_HR",
    ),
    (('train', 'val_hr'), 'validation', "'val_hr' may be splits"),
    (('trainval', 'test'), 'train', "'trainval' may be splits"),
    (('images/train', 'images/val'), 'train', 'say folder:/set/images'),
    (('a/x/Train', 'a/x/Test'), 'test', "'a/x/Test' and 'a/x/Train' are spl"),
    (('cat/train', 'cat/test', 'dog/train'), 'train', 'are splits further'),
  ],
)
def test_what_is_open_is_an_error(folders, split, said):
  with pytest.raises(InputError) as error:
    cut('/set', _listing(*folders), split)
  assert said in str(error.value)
  assert '\n' not in str(error.value)


def test_one_of_two_folders_may_be_named():
  listing = _listing('trainA', 'trainB', 'DIV2K_train_HR')
  for folder in 'trainA', 'trainB', 'DIV2K_train_HR':
    members = _members(listing, folder)
    assert {path.split('/')[0] for path in members} == {folder}
