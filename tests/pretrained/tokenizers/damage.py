"""Files of tokenizers that were damaged on purpose, and what reads them.

  python -m tests.pretrained.tokenizers.damage 2000

damages a file of each kind so many times, and prints the outcomes. Each must be
read, or refused with one line, and nothing in it is run.
"""

import collections
import json
import pathlib
import sys
import tempfile
import time
import tracemalloc

import jax
import numpy as np
from safetensors.numpy import save

from lasers_jax.errors import InputError
from lasers_jax.networks import ResNetDecoder, ResNetEncoder
from lasers_jax.pretrained.tokenizers import names, read_tokenizer
from tests.pretrained.tokenizers import light_files
from tests.pretrained.torch_files import as_legacy, as_zip

FIELDS = {
  'D': 2,
  'channels': 32,
  'multipliers': (1,),
  'blocks': 1,
  'attention': (),
  'groups': 32,
  'downsample': 'conv3',
  'middle_attention': False,
}
CONFIG = {
  '_class_name': 'AutoencoderKL',
  'block_out_channels': [32],
  'down_block_types': ['DownEncoderBlock2D'],
  'up_block_types': ['UpDecoderBlock2D'],
  'layers_per_block': 1,
  'latent_channels': 2,
  'mid_block_add_attention': False,
  'norm_num_groups': 32,
  'scaling_factor': 0.18215,
  'shift_factor': None,
  'use_quant_conv': False,
  'use_post_quant_conv': False,
}
WEIGHTS = 'diffusion_pytorch_model.safetensors'
# What a reader that ran something would do.
EVENTS = 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'os.remove'
EVENTS += 'os.rename', 'os.mkdir', 'subprocess.Popen', 'exec', 'socket.connect'
SYSTEM = b'cos\nsystem\nX\x01\x00\x00\x00:\x85R'
_seen, _watching = [], []


def _watch(event, arguments):
  if event == 'exec' and arguments[0].co_filename != '<string>':
    return  # a module of Python's own that is imported
  if _watching and event in EVENTS:
    _seen.append((event, arguments))


sys.addaudithook(_watch)


def arrays(family):
  """Arrays of zeros of a small KL model, by the names of a family."""
  encoder, decoder = ResNetEncoder(**FIELDS), ResNetDecoder(**FIELDS)
  key, found = jax.random.key(0), {}
  for side, module, shape in (
    ('encoder', encoder, (1, 1, 1, 3)),
    ('decoder', decoder, (1, 1, 1, 2)),
  ):
    tree = jax.eval_shape(module.init, key, np.zeros(shape, np.float32))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree['params']):
      *modules, word = (part.key for part in path)
      (name,) = names.names_of(family, side, 1, tuple(modules))
      sides = leaf.shape
      if len(sides) == 4:
        sides = sides[3], sides[2], *sides[:2]
      if name == 'encoder.conv_out':
        sides = 4, *sides[1:]
      ending = 'bias' if word == 'bias' else 'weight'
      found[f'{name}.{ending}'] = np.zeros(sides, np.float32)
  return found


def kinds():
  """The file to damage, of each kind, and what stands beside it."""
  taming = arrays(names.TAMING)
  lightning = {'epoch': 3, 'callbacks': {SYSTEM: SYSTEM}, 'state_dict': taming}
  config = json.dumps(CONFIG).encode()
  weights = save(arrays(names.DIFFUSERS))
  return {
    'safetensors': ({WEIGHTS: weights, 'config.json': config}, WEIGHTS),
    'config.json': ({WEIGHTS: weights, 'config.json': config}, 'config.json'),
    'pth': ({'w.pth': as_zip(taming)}, 'w.pth'),
    'ckpt': ({'w.ckpt': as_zip(lightning)}, 'w.ckpt'),
    'legacy': ({'w.bin': as_legacy(taming)}, 'w.bin'),
    'onnx': (light_files.files(), 'VAEencoder.onnx'),
  }


def damage(data, rng):
  """Changes a file in one to four places, most of them near its ends."""
  changed = bytearray(data)
  for _ in range(rng.integers(1, 5)):
    n = len(changed)
    near = int(min(n, rng.exponential(2_000)))
    at = (near, n - near, int(rng.integers(n + 1)))[rng.integers(3)]
    some = bytes(rng.integers(0, 256, rng.integers(1, 9), dtype=np.uint8))
    match rng.integers(6):
      case 0 if rng.random() < 0.2:
        changed = changed[:at]
      case 1:
        changed[at : at + len(some)] = some
      case 2:
        changed[at:at] = some
      case 3:
        del changed[at : at + len(some)]
      case 4:
        changed[at:at] = SYSTEM if rng.random() < 0.5 else b'\xff' * 8
      case 5 if at < n:
        changed[at] ^= 1 << int(rng.integers(8))
  return bytes(changed)


def outcome(path):
  """Reads a tokenizer; returns what was said, the time and the memory."""
  tracemalloc.start()
  began = time.perf_counter()
  _watching.append(True)
  try:
    read_tokenizer(path)
    said = 'read'
  except InputError as error:
    said = str(error)
    assert '\n' not in said
  finally:
    _watching.clear()
  seconds, peak = (
    time.perf_counter() - began,
    tracemalloc.get_traced_memory()[1],
  )
  tracemalloc.stop()
  assert not _seen, _seen
  return said, seconds, peak


def outcomes(kind, count, folder, seed=0):
  """Damages a file of a kind; returns counts, the longest time, most memory."""
  files, which = kinds()[kind]
  rng, found = np.random.default_rng(seed), collections.Counter()
  for name, data in files.items():
    (folder / name).write_bytes(data)
  path = folder if 'config.json' in files else folder / which
  said, *_ = outcome(path)
  assert said == 'read', said
  longest, most = 0.0, 0
  for _ in range(count):
    (folder / which).write_bytes(damage(files[which], rng))
    said, seconds, peak = outcome(path)
    longest, most = max(longest, seconds), max(most, peak)
    found['read' if said == 'read' else 'refused'] += 1
  return found, longest, most


def main():
  count = int(sys.argv[1])
  for kind in kinds():
    with tempfile.TemporaryDirectory() as folder:
      found, longest, most = outcomes(kind, count, pathlib.Path(folder))
    print(kind, dict(found), f'{longest:.2f} s, {most / 2**20:.1f} MiB')


if __name__ == '__main__':
  main()
