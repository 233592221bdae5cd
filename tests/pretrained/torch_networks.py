"""The networks in PyTorch, as their own packages define them."""

import torch
from torch import nn
from torch.nn import functional

torch.set_num_threads(1)

VGG16 = (64, 64, 'M', 128, 128, 'M', 256, 256, 256)
VGG16 += ('M', 512, 512, 512, 'M', 512, 512, 512)
# After which layers LPIPS looks, counted as torchvision does.
TAPS = {'vgg16': (3, 8, 15, 22, 29), 'alexnet': (1, 4, 7, 9, 11)}
WIDTHS = {
  'vgg16': (64, 128, 256, 512, 512),
  'alexnet': (64, 192, 384, 256, 256),
}


def vgg16():
  layers, ins = [], 3
  for outs in VGG16:
    if outs == 'M':
      layers.append(nn.MaxPool2d(2, 2))
    else:
      layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU()]
      ins = outs
  return nn.Sequential(*layers)


def alexnet():
  return nn.Sequential(
    nn.Conv2d(3, 64, 11, 4, 2),
    nn.ReLU(),
    nn.MaxPool2d(3, 2),
    nn.Conv2d(64, 192, 5, padding=2),
    nn.ReLU(),
    nn.MaxPool2d(3, 2),
    nn.Conv2d(192, 384, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(384, 256, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(256, 256, 3, padding=1),
    nn.ReLU(),
  )


class LPIPS(nn.Module):
  """Distances of images [B, 3, h, w] in [0, 1]; parameters are drawn."""

  def __init__(self, net, seed=0):
    super().__init__()
    torch.manual_seed(seed)
    self.features = {'vgg16': vgg16, 'alexnet': alexnet}[net]()
    for layer in self.features:
      if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(layer.bias, std=0.1)
    self.taps = TAPS[net]
    self.heads = [torch.rand(width) for width in WIDTHS[net]]

  def heads_state(self):
    return {
      f'lin{i}.model.1.weight': head.reshape(1, -1, 1, 1)
      for i, head in enumerate(self.heads)
    }

  def maps(self, x):
    shift = torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)
    x, maps = (2 * x - 1 - shift) / scale, []
    for i, layer in enumerate(self.features):
      x = layer(x)
      if i in self.taps:
        maps.append(x)
    return maps

  def forward(self, a, b):
    total = 0
    for x, y, head in zip(self.maps(a), self.maps(b), self.heads, strict=True):
      x = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
      y = y / (y.square().sum(1, keepdim=True).sqrt() + 1e-10)
      squares = (x - y).square() * head.reshape(1, -1, 1, 1)
      total = total + squares.sum(1).mean((1, 2))
    return total


class Bottleneck(nn.Module):
  def __init__(self, ins, width, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(ins, width, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(4 * width)
    self.downsample = None
    if stride > 1 or ins != 4 * width:
      self.downsample = nn.Sequential(
        nn.Conv2d(ins, 4 * width, 1, stride, bias=False),
        nn.BatchNorm2d(4 * width),
      )

  def forward(self, x):
    y = functional.relu(self.bn1(self.conv1(x)))
    y = functional.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    return functional.relu(y + (self.downsample or nn.Identity())(x))


class ResNet50(nn.Module):
  """Features [B, 2048] of images [B, 3, h, w] in [0, 1]; parameters drawn."""

  def __init__(self, seed=0):
    super().__init__()
    torch.manual_seed(seed)
    self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    ins = 64
    for i, blocks in enumerate((3, 4, 6, 3)):
      stage = []
      for j in range(blocks):
        stage.append(Bottleneck(ins, 64 * 2**i, 2 if i and not j else 1))
        ins = 256 * 2**i
      setattr(self, f'layer{i + 1}', nn.Sequential(*stage))
    self.fc = nn.Linear(2048, 1000)
    for module in self.modules():
      if isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight, 0.3, 0.7)
        nn.init.normal_(module.bias, std=0.1)
        nn.init.normal_(module.running_mean, std=0.1)
        nn.init.uniform_(module.running_var, 0.1, 1)
    self.eval()

  def forward(self, x):
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    x = functional.relu(self.bn1(self.conv1((x - mean) / deviation)))
    x = functional.max_pool2d(x, 3, 2, 1)
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return x.mean((2, 3))
