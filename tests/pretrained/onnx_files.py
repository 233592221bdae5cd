"""Files of ONNX, made without its library."""

FLOAT32 = 1


def integer(value):
  """Returns the bytes of an integer, seven bits each."""
  return (
    bytes([value])
    if value < 128
    else (bytes([value & 127 | 128]) + integer(value >> 7))
  )


def field(number, value):
  """Returns a field of a message: an integer, a text or bytes."""
  if isinstance(value, int):
    return integer(8 * number) + integer(value)
  data = value.encode() if isinstance(value, str) else bytes(value)
  return integer(8 * number + 2) + integer(len(data)) + data


def initializer(name, array):
  """Returns the message of a float32 array."""
  sides = b''.join(field(1, side) for side in array.shape)
  numbers = field(9, array.astype('<f4').tobytes())
  said = field(2, FLOAT32) + field(8, name) + numbers
  return sides + said


def as_onnx(messages):
  """Returns the bytes of a file of a node and such messages."""
  node = field(1, field(1, 'input') + field(2, 'latent') + field(4, 'Conv'))
  graph = node + field(2, 'main') + b''.join(field(5, x) for x in messages)
  producer = field(1, 8) + field(2, 'pytorch')
  return producer + field(7, graph) + field(8, field(2, 17))


def of_arrays(arrays):
  return as_onnx([initializer(*pair) for pair in arrays.items()])
