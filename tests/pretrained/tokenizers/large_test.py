"""Small tokenizers in large files, of which only they are read."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

from lasers_jax.errors import InputError
from lasers_jax.pretrained.tokenizers import names, read_tokenizer
from tests.pretrained.tokenizers.damage import arrays
from tests.pretrained.torch_files import as_legacy, as_zip

LARGE, LIMIT = 2**28, 2**24  # bytes of another network, and of memory


def within(prefix):
  return {prefix + name: x for name, x in arrays(names.TAMING).items()}


def model():
  """A larger model; one number stands for all those of the other network."""
  one = np.ones(1, np.float32)
  return {'model.diffusion': one, **within('first_stage_model.')}


def as_safetensors(file, prefix='first_stage_model.'):
  data = save(within(prefix))
  length = int.from_bytes(data[:8], 'little')
  head = json.loads(data[8 : 8 + length])
  numbers = data[8 + length :]
  head['model.diffusion'] = {
    'dtype': 'F32',
    'shape': [LARGE // 4],
    'data_offsets': [len(numbers), len(numbers) + LARGE],
  }
  text = json.dumps(head).encode()
  file.write_bytes(len(text).to_bytes(8, 'little') + text + numbers)
  with file.open('ab') as stream:
    stream.truncate(file.stat().st_size + LARGE)


def as_checkpoint(file):
  """With the large storage as the first one, as the names are sorted."""
  plain = zipfile.ZipFile(io.BytesIO(as_zip({'state_dict': model()})))
  with zipfile.ZipFile(file, 'w') as archive:
    for name in plain.namelist():
      data = plain.read(name)
      data = bytes(LARGE) if name == 'archive/data/0' else data
      archive.writestr(name, data)


def as_old_checkpoint(file):
  small, (count, number) = as_legacy(model()), (b'\1' + bytes(7), np.float32(1))
  place = small.index(count + number.tobytes())
  with file.open('wb') as stream:
    stream.write(small[:place])
    stream.write((LARGE // 4).to_bytes(8, 'little'))
    stream.seek(LARGE, io.SEEK_CUR)
    stream.write(small[place + 12 :])


@pytest.mark.parametrize(
  'write', [as_safetensors, as_checkpoint, as_old_checkpoint]
)
def test_memory_is_that_of_the_tokenizer(write, tmp_path):
  file = tmp_path / 'v1-5.ckpt'
  write(file)
  assert file.stat().st_size > LARGE
  (tmp_path / 'small').write_bytes(save(arrays(names.TAMING)))
  expected = read_tokenizer(tmp_path / 'small')  # imports, and traces shapes
  tracemalloc.start()
  try:
    found = read_tokenizer(file)
    _, most = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert found.network == expected.network
  assert most < LIMIT


def test_a_model_without_a_tokenizer_is_refused_by_its_names(tmp_path):
  as_safetensors(tmp_path / 'unet.safetensors', 'other.')
  tracemalloc.start()
  try:
    with pytest.raises(InputError, match=r'unet.*: there are no arrays enc'):
      read_tokenizer(tmp_path / 'unet.safetensors')
    assert tracemalloc.get_traced_memory()[1] < LIMIT
  finally:
    tracemalloc.stop()
