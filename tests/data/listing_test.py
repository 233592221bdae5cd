import os

import pytest

from lasers_jax.data import listing
from lasers_jax.data.listing import count_reasons, list_images
from tests.data.made import save


def _touch(root, *paths):
  for path in paths:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(b'?')


def _link(root, path, target):
  (root / path).parent.mkdir(parents=True, exist_ok=True)
  os.symlink(target, root / path)


@pytest.fixture(params=['as it is', 'backwards'])
def any_order(request, monkeypatch):
  """The disk lists in one order, and in the other."""
  scan = os.scandir

  class Backwards:
    def __init__(self, path):
      self.entries = sorted(scan(path), key=lambda x: x.name, reverse=True)

    def __enter__(self):
      return self.entries

    def __exit__(self, *_):
      pass

  if request.param == 'backwards':
    monkeypatch.setattr(os, 'scandir', Backwards)


def test_pictures_are_known_by_the_endings_that_pillow_reads(tmp_path):
  read = 'png PNG jpg jpeg jpe jfif gif bmp tif tiff webp avif ppm pgm jp2 tga'
  _touch(tmp_path, *[f'{i}.{x}' for i, x in enumerate(read.split())])
  _touch(tmp_path, 'a.txt', 'b.json', 'c', 'd.zip', 'e.png.part', 'Thumbs.db')
  found = list_images(str(tmp_path))
  assert len(found.files) == len(read.split())
  assert found.left_out == []


@pytest.mark.parametrize(
  ('path', 'why'),
  [
    ('a.heic', listing.UNREAD),
    ('a.HEIF', listing.UNREAD),
    ('a.cr2', listing.UNREAD),
    ('a.DNG', listing.UNREAD),
    ('a.svg', listing.UNREAD),
    ('a.eps', listing.UNREAD),
    ('a.fits', listing.UNREAD),
    ('.a.png', listing.HIDDEN),
    ('x/.git/a.png', listing.HIDDEN),
    ('._a.png', listing.COPIES),
    ('__MACOSX/x/._a.png', listing.COPIES),
    ('.AppleDouble/a.png', listing.COPIES),
    ('x/.thumbnails/normal/a.png', listing.THUMBNAILS),
    ('@eaDir/b.png/SYNOPHOTO_THUMB_M.jpg', listing.THUMBNAILS),
    ('Thumbnails/a.jpg', listing.THUMBNAILS),
    ('.Trash-1000/files/a.png', listing.WASTE),
    ('.Trash/a.png', listing.WASTE),
    ('$RECYCLE.BIN/S-1-5/$R1.png', listing.WASTE),
    ('#recycle/a.png', listing.WASTE),
  ],
)
def test_what_systems_lay_beside_pictures_is_left_out(tmp_path, path, why):
  _touch(tmp_path, 'good.png', 'x/good.png', path)
  found = list_images(str(tmp_path))
  assert found.files == ['good.png', 'x/good.png']
  ((left, reason),) = found.left_out
  assert reason == why
  assert path.startswith(left)


def test_the_folder_itself_may_have_any_name(tmp_path):
  _touch(tmp_path, '.thumbnails/a.png')
  assert list_images(str(tmp_path / '.thumbnails')).files == ['a.png']


@pytest.mark.parametrize(
  'marks',
  [
    ('config.json', 'metrics.jsonl'),
    ('config.json', 'checkpoints/6/x'),
    ('results.json', 'results.png'),
    ('table.json', 'table.md'),
    ('curve.json', 'curve.md'),
  ],
)
def test_what_a_run_wrote_is_left_out(tmp_path, marks):
  _touch(tmp_path, 'a.png', *[f'runs/mine/{x}' for x in marks])
  _touch(tmp_path, 'runs/mine/pictures/600.png', 'runs/mine/x/y.png')
  found = list_images(str(tmp_path))
  assert found.files == ['a.png']
  assert {why for _, why in found.left_out} == {listing.OF_A_RUN}
  # Where pictures and the run share a folder, only what runs write is theirs.
  _touch(tmp_path, *marks, 'pictures/600.png')
  assert list_images(str(tmp_path)).files == ['a.png']


def test_a_link_to_a_class_is_no_second_class(tmp_path, any_order):
  _touch(tmp_path, 'b/1.png', 'b/2.png')
  _link(tmp_path, 'a', tmp_path / 'b')
  _link(tmp_path, 'c', 'b')
  found = list_images(str(tmp_path))
  assert found.files == ['b/1.png', 'b/2.png']
  assert found.left_out == [('a', listing.LINKED), ('c', listing.LINKED)]
  assert found.folders == ['b']


def test_links_lead_out_of_the_folder_once(tmp_path, any_order):
  root, out = tmp_path / 'root', tmp_path / 'out'
  _touch(root, 'own.png')
  _touch(out, 'sub/1.png', '2.png', 'alone.png')
  _link(root, 'first', out / 'sub')
  _link(root, 'second', out)
  _link(root, 'third', out)
  _link(root, 'x.png', out / '2.png')
  _link(root, 'y.png', out / '2.png')
  found = list_images(str(root))
  assert found.files == [
    'first/1.png', 'own.png', 'second/2.png', 'second/alone.png'
  ]  # fmt: skip
  assert [path for path, _ in found.left_out] == [
    'second/sub', 'third', 'x.png', 'y.png'
  ]  # fmt: skip


def test_circles_of_links_end(tmp_path, any_order):
  root = tmp_path / 'root'
  _touch(root, 'a/1.png', 'b/2.png')
  _link(root, 'a/loop', root)
  _link(root, 'a/b', '../b')
  _link(root, 'b/a', '../a')
  _link(root, 'up', '..')
  _link(root, 'self', 'self')
  _link(root, 'self.png', 'self.png')
  _touch(tmp_path, 'outside.png')
  found = list_images(str(root))
  assert found.files == ['a/1.png', 'b/2.png']
  assert ('self.png', listing.BROKEN) in found.left_out
  assert {'a/loop', 'a/b', 'b/a', 'up'} <= {path for path, _ in found.left_out}


def test_a_split_made_of_links_keeps_its_pictures(tmp_path, any_order):
  _touch(tmp_path, *[f'all/{i}.png' for i in range(4)], 'data/x/5.png')
  for i in range(2):
    _link(tmp_path, f'train/{i}.png', f'../all/{i}.png')
  _link(tmp_path, 'test', 'data/x')
  _link(tmp_path, 'val', 'test')
  found = list_images(str(tmp_path), {'train', 'test', 'val'}.__contains__)
  assert found.files == [
    'all/2.png', 'all/3.png', 'test/5.png', 'train/0.png', 'train/1.png'
  ]  # fmt: skip
  assert found.folders == ['all', 'data', 'test', 'train']
  assert {path for path, _ in found.left_out} == {
    'all/0.png', 'all/1.png', 'data/x', 'val'
  }  # fmt: skip


def test_links_that_lead_nowhere_and_pipes_are_left_out(tmp_path):
  _touch(tmp_path, 'a.png')
  _link(tmp_path, 'gone.png', 'no/such.png')
  os.mkfifo(tmp_path / 'pipe.png')
  assert list_images(str(tmp_path)).left_out == [
    ('gone.png', listing.BROKEN), ('pipe.png', listing.SPECIAL)
  ]  # fmt: skip


def test_hard_links_are_pictures(tmp_path):
  save(tmp_path / 'a.png')
  os.link(tmp_path / 'a.png', tmp_path / 'b.png')
  assert list_images(str(tmp_path)).files == ['a.png', 'b.png']


def test_the_order_is_that_of_one_unicode_form(tmp_path, any_order):
  names = 'e\u0301.png', 'f.png', '\u00e9a.png', 'E.png', 'e.png'
  _touch(tmp_path, *names)
  found = list_images(str(tmp_path)).files
  assert found == ['E.png', 'e.png', 'f.png', 'e\u0301.png', '\u00e9a.png']


def test_both_forms_and_cases_of_a_name_are_two_pictures(tmp_path):
  names = ['A.png', 'a.png', 'e\u0301.png', '\u00e9.png']
  _touch(tmp_path, *names)
  assert sorted(list_images(str(tmp_path)).files) == sorted(names)


def test_names_that_are_no_text_are_names(tmp_path):
  name = os.fsdecode(b'\xff\xfe.png')
  _touch(tmp_path, name)
  assert list_images(str(tmp_path)).files == [name]


def test_what_is_left_out_is_counted_by_reason():
  left_out = [('a', 'hidden'), ('b.png', 'broken links'), ('c', 'hidden')]
  said = count_reasons(left_out)
  assert said == 'hidden: 2 (a, ...); broken links: 1 (b.png)'


def test_progress_is_said_every_few_seconds(caplog, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(listing.time, 'monotonic', lambda: now[0])
  with caplog.at_level('INFO'):
    progress = listing.Progress()
    for i in range(13):
      now[0] = float(i)
      progress('%d done', i)
  assert caplog.messages == ['5 done', '10 done']
