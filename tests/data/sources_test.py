import pytest

from lasers_jax.data import open_source
from lasers_jax.data.sources import fingerprint_of
from lasers_jax.errors import InputError
from tests.data.made import noise, save


@pytest.mark.parametrize(
  'harm',
  [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(path.read_bytes()[:-30]),
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(b'no picture'),
  ],
)
def test_a_picture_that_is_gone_is_named(tmp_path, harm):
  for i in range(3):
    save(tmp_path / f'{i}.png', noise(64, 64, seed=i))
  source = open_source(f'folder:{tmp_path}', 'all')
  harm(tmp_path / '1.png')
  source[0]
  with pytest.raises(InputError) as error:
    source[1]
  assert f'{tmp_path}/1.png can no longer be read (' in str(error.value)
  assert '\n' not in str(error.value)


def test_a_fingerprint_does_not_know_an_order():
  one = fingerprint_of(['a\0001', 'b\0002'])
  assert one == fingerprint_of(['b\0002', 'a\0001'])
  assert one != fingerprint_of(['a\0002', 'b\0001'])
  assert one['count'] == 2
  assert len(one['hash']) == 32
