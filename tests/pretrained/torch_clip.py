"""CLIP's image tower in PyTorch, for the test of ours.

Channels first; the names are those of Hugging Face's state dicts.
"""

import torch
from torch import nn


class Embeddings(nn.Module):
  def __init__(self, width, patch, tokens):
    super().__init__()
    self.class_embedding = nn.Parameter(torch.zeros(width))
    self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
    self.position_embedding = nn.Embedding(tokens, width)

  def forward(self, x):
    x = self.patch_embedding(x).flatten(2).mT
    first = self.class_embedding.expand(len(x), 1, -1)
    return torch.cat([first, x], dim=1) + self.position_embedding.weight


class Attention(nn.Module):
  def __init__(self, width):
    super().__init__()
    for name in 'qkv':
      self.add_module(f'{name}_proj', nn.Linear(width, width))
    self.out_proj = nn.Linear(width, width)

  def forward(self, x):
    batch, tokens, width = x.shape

    def by_head(y):
      return y.view(batch, tokens, width // 64, 64).transpose(1, 2)

    q, k, v = map(by_head, (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
    weights = torch.softmax(q @ k.mT / 8, dim=-1)
    joined = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
    return self.out_proj(joined)


class Perceptron(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.fc1 = nn.Linear(width, 4 * width)
    self.fc2 = nn.Linear(4 * width, width)

  def forward(self, x):
    x = self.fc1(x)
    return self.fc2(x * torch.sigmoid(1.702 * x))


class Layer(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.layer_norm1 = nn.LayerNorm(width, eps=1e-5)
    self.self_attn = Attention(width)
    self.layer_norm2 = nn.LayerNorm(width, eps=1e-5)
    self.mlp = Perceptron(width)

  def forward(self, x):
    x = x + self.self_attn(self.layer_norm1(x))
    return x + self.mlp(self.layer_norm2(x))


class Tower(nn.Module):
  """[B, 3, side, side] in [0, 1] -> [B, embedding] of unit length."""

  def __init__(self, side, patch, width, layers, embedding):
    super().__init__()
    tokens = (side // patch) ** 2 + 1
    self.vision_model = nn.ModuleDict(
      {
        'embeddings': Embeddings(width, patch, tokens),
        'pre_layrnorm': nn.LayerNorm(width, eps=1e-5),
        'encoder': nn.ModuleDict(
          {'layers': nn.Sequential(*(Layer(width) for _ in range(layers)))}
        ),
        'post_layernorm': nn.LayerNorm(width, eps=1e-5),
      }
    )
    self.visual_projection = nn.Linear(width, embedding, bias=False)

  def forward(self, x):
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    x = (x - mean[:, None, None]) / deviation[:, None, None]
    model = self.vision_model
    x = model.pre_layrnorm(model.embeddings(x))
    x = model.encoder.layers(x)
    x = self.visual_projection(model.post_layernorm(x[:, 0]))
    return x / x.norm(dim=-1, keepdim=True)


def randomize(network, seed):
  """Draws every weight, so that none is at the 0 or 1 where it starts."""
  generator = torch.Generator().manual_seed(seed)
  for name, array in network.state_dict().items():
    if 'norm' in name and name.endswith('weight'):
      array.uniform_(0.5, 1.5, generator=generator)
    else:
      fan_in = array[0].numel() if array.ndim > 1 else 10
      array.normal_(0, fan_in**-0.5, generator=generator)
  return network.eval()
