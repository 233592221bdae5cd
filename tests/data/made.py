"""Pictures, colour profiles and data sets that tests write."""

import collections
import json
import os
import struct

import numpy as np
from PIL import Image

ADOBE = (  # red, green and blue of Adobe RGB (1998), in XYZ under D50
  (0.60974, 0.31111, 0.01947),
  (0.20528, 0.62567, 0.06087),
  (0.14919, 0.06322, 0.74457),
)
SRGB = (
  (0.43607, 0.22249, 0.01392),
  (0.38515, 0.71687, 0.09708),
  (0.14307, 0.06061, 0.71410),
)
KIND = 'tensorflow_datasets.core.features.'
_D50 = (0.9642, 1.0, 0.8249)


class Numbered:
  """Pictures in memory; pixel (y, x) of number i is (i, y, x)."""

  def __init__(self, shapes):
    self.name, self.split, self.classes = 'drawn', 'train', None
    self.shapes = shapes
    self.reads = collections.Counter()

  def __len__(self):
    return len(self.shapes)

  def __getitem__(self, index):
    self.reads[index] += 1
    image = np.empty((*self.shapes[index], 3), np.uint8)
    image[..., 0] = index
    image[..., 1] = np.arange(image.shape[0])[:, None]
    image[..., 2] = np.arange(image.shape[1])
    return {'image': image, 'label': index}


def assert_equal(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key])
    assert a[key].dtype == b[key].dtype


def noise(height=12, width=10, channels=3, seed=0):
  shape = (height, width, channels) if channels > 1 else (height, width)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, array=None, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  picture = Image.fromarray(noise() if array is None else array)
  picture.save(path, **options)
  return path


def _numbers(values):
  return b''.join(struct.pack('>i', round(65536 * x)) for x in values)


def _profile(space, kind, connection, tags):
  """An ICC profile of version 2: a header of 128 bytes, a table, the tags."""
  words = b'desc' + bytes(4) + struct.pack('>I', 2) + b'x\0' + bytes(78)
  tags = {b'desc': words, b'wtpt': b'XYZ ' + bytes(4) + _numbers(_D50), **tags}
  table, data = struct.pack('>I', len(tags)), b''
  for name, value in tags.items():
    place = 132 + 12 * len(tags) + len(data)
    table += name + struct.pack('>II', place, len(value))
    data += value + bytes(-len(value) % 4)
  head = struct.pack('>I4sI', 128 + len(table + data), b'', 0x02100000)
  head += kind + space + connection + bytes(12) + b'acsp' + bytes(28)
  head += _numbers(_D50)
  return head.ljust(128, b'\0') + table + data


def _curve(gamma):
  return b'curv' + bytes(4) + struct.pack('>IH', 1, round(256 * gamma))


def rgb_profile(gamma=2.2, primaries=ADOBE):
  tags = {}
  for letter, colour in zip('rgb', primaries, strict=True):
    tags[f'{letter}XYZ'.encode()] = b'XYZ ' + bytes(4) + _numbers(colour)
    tags[f'{letter}TRC'.encode()] = _curve(gamma)
  return _profile(b'RGB ', b'mntr', b'XYZ ', tags)


def grey_profile(gamma=1.8):
  return _profile(b'GRAY', b'mntr', b'XYZ ', {b'kTRC': _curve(gamma)})


def cmyk_profile():
  """Each ink, full, halves the lightness, and has no colour."""
  identity = bytes(range(256))
  inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing='ij'), -1).reshape(16, 4)
  light = np.round(255 * 0.5 ** inks.sum(1)).astype(np.uint8)
  table = b''.join(bytes([x, 128, 128]) for x in light.tolist())
  lut = b'mft1' + bytes(4) + bytes([4, 3, 2, 0])
  lut += _numbers(np.eye(3).ravel()) + 4 * identity + table + 3 * identity
  return _profile(b'CMYK', b'prtr', b'Lab ', {b'A2B0': lut})


def to_srgb(pixels, gamma=2.2, primaries=ADOBE):
  """What pixels 0 to 255 of such a profile are in sRGB, in float64."""
  light = (np.asarray(pixels, np.float64) / 255) ** gamma
  linear = light @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))
  linear = linear.clip(0, 1)
  low, high = 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
  return 255 * np.where(linear <= 0.0031308, low, high)


def write_tfds(root, name, features, examples, split='train'):
  """Writes a prepared data set of tfds, without TensorFlow.

  `features`: name to what features.json says of it; `examples`: name to bytes
  or to a number.
  """
  from array_record.python.array_record_module import ArrayRecordWriter
  from tensorflow_datasets.proto import tf_example_pb2

  folder = root / name / '1.0.0'
  folder.mkdir(parents=True)
  file = f'{name}-{split}.array_record-00000-of-00001'
  writer = ArrayRecordWriter(os.fspath(folder / file), 'group_size:1')
  for example in examples:
    record = tf_example_pb2.Example()
    for key, value in example.items():
      feature = record.features.feature[key]
      if isinstance(value, bytes):
        feature.bytes_list.value.append(value)
      else:
        feature.int64_list.value.append(value)
    writer.write(record.SerializeToString())
  writer.close()
  describe_tfds(root, name, features, 'array_record', split, len(examples))


def describe_tfds(root, name, features, file_format, split='train', count=4):
  """Writes what is said of a data set of tfds, and no records."""
  folder = root / name / '1.0.0'
  folder.mkdir(parents=True, exist_ok=True)
  part = {
    'name': split,
    'shardLengths': [str(count)],
    'numBytes': '9',
    'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
  }
  info = {'name': name, 'version': '1.0.0', 'splits': [part]}
  info['fileFormat'] = file_format
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  kind = f'{KIND}features_dict.FeaturesDict'
  text = {'pythonClassName': kind, 'featuresDict': {'features': features}}
  (folder / 'features.json').write_text(json.dumps(text))


def image_feature(dtype='uint8', channels=3):
  return {
    'pythonClassName': f'{KIND}image_feature.Image',
    'image': {
      'shape': {'dimensions': ['-1', '-1', str(channels)]},
      'dtype': dtype,
      'encodingFormat': 'png',
    },
  }
