"""The Inception network of FID in PyTorch, for the test of ours.

Channels first; the names are those of the state dict that pytorch-fid loads.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Unit(nn.Module):
  def __init__(self, c, o, kernel=1, padding=0, stride=1):
    super().__init__()
    self.conv = nn.Conv2d(c, o, kernel, stride, padding, bias=False)
    self.bn = nn.BatchNorm2d(o, eps=0.001)

  def forward(self, x):
    return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
  """Units by name, and the function that joins them."""

  def __init__(self, forward, **units):
    super().__init__()
    for name, arguments in units.items():
      self.add_module(name, Unit(*arguments))
    self.join = forward

  def forward(self, x):
    return torch.cat(self.join(self, x), dim=1)


def mean_pool(x):
  return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def block_a(c, pool):
  def forward(m, x):
    double = m.branch3x3dbl_2(m.branch3x3dbl_1(x))
    return (
      m.branch1x1(x),
      m.branch5x5_2(m.branch5x5_1(x)),
      m.branch3x3dbl_3(double),
      m.branch_pool(mean_pool(x)),
    )

  return Block(
    forward,
    branch1x1=(c, 64),
    branch5x5_1=(c, 48),
    branch5x5_2=(48, 64, 5, 2),
    branch3x3dbl_1=(c, 64),
    branch3x3dbl_2=(64, 96, 3, 1),
    branch3x3dbl_3=(96, 96, 3, 1),
    branch_pool=(c, pool),
  )


def block_b(c):
  def forward(m, x):
    double = m.branch3x3dbl_2(m.branch3x3dbl_1(x))
    return m.branch3x3(x), m.branch3x3dbl_3(double), F.max_pool2d(x, 3, 2)

  return Block(
    forward,
    branch3x3=(c, 384, 3, 0, 2),
    branch3x3dbl_1=(c, 64),
    branch3x3dbl_2=(64, 96, 3, 1),
    branch3x3dbl_3=(96, 96, 3, 0, 2),
  )


def block_c(c, n):
  def forward(m, x):
    y = m.branch7x7_3(m.branch7x7_2(m.branch7x7_1(x)))
    z = m.branch7x7dbl_3(m.branch7x7dbl_2(m.branch7x7dbl_1(x)))
    z = m.branch7x7dbl_5(m.branch7x7dbl_4(z))
    return m.branch1x1(x), y, z, m.branch_pool(mean_pool(x))

  return Block(
    forward,
    branch1x1=(c, 192),
    branch7x7_1=(c, n),
    branch7x7_2=(n, n, (1, 7), (0, 3)),
    branch7x7_3=(n, 192, (7, 1), (3, 0)),
    branch7x7dbl_1=(c, n),
    branch7x7dbl_2=(n, n, (7, 1), (3, 0)),
    branch7x7dbl_3=(n, n, (1, 7), (0, 3)),
    branch7x7dbl_4=(n, n, (7, 1), (3, 0)),
    branch7x7dbl_5=(n, 192, (1, 7), (0, 3)),
    branch_pool=(c, 192),
  )


def block_d(c):
  def forward(m, x):
    y = m.branch7x7x3_3(m.branch7x7x3_2(m.branch7x7x3_1(x)))
    return (
      m.branch3x3_2(m.branch3x3_1(x)),
      m.branch7x7x3_4(y),
      F.max_pool2d(x, 3, 2),
    )

  return Block(
    forward,
    branch3x3_1=(c, 192),
    branch3x3_2=(192, 320, 3, 0, 2),
    branch7x7x3_1=(c, 192),
    branch7x7x3_2=(192, 192, (1, 7), (0, 3)),
    branch7x7x3_3=(192, 192, (7, 1), (3, 0)),
    branch7x7x3_4=(192, 192, 3, 0, 2),
  )


def block_e(c, pool):
  def forward(m, x):
    y = m.branch3x3_1(x)
    z = m.branch3x3dbl_2(m.branch3x3dbl_1(x))
    return (
      m.branch1x1(x),
      *(m.branch3x3_2a(y), m.branch3x3_2b(y)),
      *(m.branch3x3dbl_3a(z), m.branch3x3dbl_3b(z)),
      m.branch_pool(pool(x)),
    )

  return Block(
    forward,
    branch1x1=(c, 320),
    branch3x3_1=(c, 384),
    branch3x3_2a=(384, 384, (1, 3), (0, 1)),
    branch3x3_2b=(384, 384, (3, 1), (1, 0)),
    branch3x3dbl_1=(c, 448),
    branch3x3dbl_2=(448, 384, 3, 1),
    branch3x3dbl_3a=(384, 384, (1, 3), (0, 1)),
    branch3x3dbl_3b=(384, 384, (3, 1), (1, 0)),
    branch_pool=(c, 192),
  )


class Inception(nn.Module):
  """[B, 3, 299, 299] in [-1, 1] -> [B, 2048]."""

  def __init__(self):
    super().__init__()
    self.Conv2d_1a_3x3 = Unit(3, 32, 3, 0, 2)
    self.Conv2d_2a_3x3 = Unit(32, 32, 3)
    self.Conv2d_2b_3x3 = Unit(32, 64, 3, 1)
    self.Conv2d_3b_1x1 = Unit(64, 80)
    self.Conv2d_4a_3x3 = Unit(80, 192, 3)
    self.Mixed_5b = block_a(192, 32)
    self.Mixed_5c = block_a(256, 64)
    self.Mixed_5d = block_a(288, 64)
    self.Mixed_6a = block_b(288)
    self.Mixed_6b = block_c(768, 128)
    self.Mixed_6c = block_c(768, 160)
    self.Mixed_6d = block_c(768, 160)
    self.Mixed_6e = block_c(768, 192)
    self.Mixed_7a = block_d(768)
    self.Mixed_7b = block_e(1280, mean_pool)
    self.Mixed_7c = block_e(2048, lambda x: F.max_pool2d(x, 3, 1, 1))
    self.fc = nn.Linear(2048, 1008)

  def forward(self, x):
    x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
    x = self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2))
    x = F.max_pool2d(self.Conv2d_4a_3x3(x), 3, 2)
    for name, block in self.named_children():
      if name.startswith('Mixed'):
        x = block(x)
    return x.mean(dim=(2, 3))


def randomize(network, seed):
  """Draws weights and statistics that keep the activations of order 1."""
  generator = torch.Generator().manual_seed(seed)
  for name, array in network.state_dict().items():
    if not array.is_floating_point():
      continue
    if name.endswith(('bn.weight', 'running_var')):
      array.uniform_(0.5, 1.5, generator=generator)
    else:
      fan_in = array[0].numel() if array.ndim > 1 else 200
      array.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
  return network.eval()
