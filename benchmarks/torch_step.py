"""The same training step in plain PyTorch, for comparison."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
  """x + conv1x1(relu(conv3x3(relu(x))))."""

  def __init__(self):
    super().__init__()
    self.body = nn.Sequential(
      nn.ReLU(),
      nn.Conv2d(128, 32, 3, padding=1, bias=False),
      nn.ReLU(),
      nn.Conv2d(32, 128, 1, bias=False),
    )

  def forward(self, x):
    return x + self.body(x)


def networks(d: int) -> tuple[nn.Module, nn.Module]:
  """Returns the paper's encoder and decoder."""
  encoder = nn.Sequential(
    nn.Conv2d(3, 64, 4, 2, 1),
    nn.ReLU(),
    nn.Conv2d(64, 128, 4, 2, 1),
    nn.ReLU(),
    nn.Conv2d(128, 128, 3, padding=1),
    Residual(),
    Residual(),
    nn.ReLU(),
    nn.Conv2d(128, d, 1),
  )
  decoder = nn.Sequential(
    nn.Conv2d(d, 128, 3, padding=1),
    Residual(),
    Residual(),
    nn.ReLU(),
    nn.ConvTranspose2d(128, 64, 4, 2, 1),
    nn.ReLU(),
    nn.ConvTranspose2d(64, 3, 4, 2, 1),
  )
  return encoder, decoder


def quantize(signals, codes, counts, sums, decay=0.99):
  """Quantizes signals by VQ with EMA K-means, and updates the buffers."""
  with torch.no_grad():
    scores = codes.square().sum(1) - 2 * signals @ codes.T
    indices = scores.argmin(1)
    n = torch.bincount(indices, minlength=len(codes))
    total = torch.zeros_like(sums).index_add_(0, indices, signals)
    counts.mul_(decay).add_(n, alpha=1 - decay)
    sums.mul_(decay).add_(total, alpha=1 - decay)
    quantized = codes[indices]
    codes.copy_(sums / (counts[:, None] + 1e-5))
  return quantized


@torch.no_grad()
def sparse_code(signals, atoms, s: int):
  """Codes by OMP with normal equations: atoms, coefficients [N, S]."""
  gram, start = atoms.T @ atoms, signals @ atoms
  correlations = start.clone()
  device = signals.device
  chosen = torch.empty(len(signals), 0, dtype=torch.long, device=device)
  rows = torch.arange(len(signals), device=device)
  for k in range(s):
    best = correlations.abs()
    best[rows[:, None], chosen] = -1
    chosen = torch.cat([chosen, best.argmax(1, keepdim=True)], 1)
    system = gram[chosen[:, :, None], chosen[:, None]]
    system = system + 1e-6 * torch.eye(k + 1, device=device)
    factor = torch.linalg.cholesky(system)
    right = start.gather(1, chosen)[..., None]
    coefficients = torch.cholesky_solve(right, factor)[..., 0]
    correlations = start - torch.einsum(
      'ns,nsk->nk', coefficients, gram[chosen]
    )
  return chosen, coefficients


class Coder(nn.Module):
  """Codes latents [B, D, H, W]; returns what the decoder gets, and a loss.

  Args:
    name: 'none', 'vq' or 'lasers'.
    sizes: D, K, S.
  """

  def __init__(self, name: str, sizes: tuple[int, int, int]):
    super().__init__()
    d, k, self.s = sizes
    self.name = name
    atoms = F.normalize(torch.randn(d, k), dim=0)
    self.atoms = nn.Parameter(atoms) if name == 'lasers' else atoms
    codes = 0.1 * torch.randn(k, d)
    buffers = {'codes': codes, 'counts': torch.ones(k), 'sums': codes.clone()}
    for key, buffer in buffers.items():
      self.register_buffer(key, buffer)

  def forward(self, z):
    if self.name == 'none':
      return z, 0.0
    b, d, h, w = z.shape
    signals, extra = z.permute(0, 2, 3, 1).reshape(-1, d), 0.0
    held = signals.detach()
    if self.name == 'vq':
      quantized = quantize(held, self.codes, self.counts, self.sums)
    else:
      unit = F.normalize(self.atoms, dim=0)
      chosen, coefficients = sparse_code(held, unit.detach(), self.s)
      quantized = torch.einsum('ns,nsd->nd', coefficients, unit.T[chosen])
      extra = F.mse_loss(quantized, held)
      quantized = quantized.detach()
    loss = extra + 0.25 * F.mse_loss(signals, quantized)
    passed = signals + (quantized - signals).detach()
    return passed.reshape(b, h, w, d).permute(0, 3, 1, 2), loss


def compiled(network: nn.Module) -> nn.Module:
  """Compiles a network for a card, with products of TF32."""
  torch.set_float32_matmul_precision('high')
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  return torch.compile(network)


def build(
  name: str,
  images: np.ndarray,
  sizes: tuple[int, int, int],
  device: str = 'cpu',
  bfloat16: bool = False,
) -> Callable[[], None]:
  """Builds a function that does one step; see `train_step.jax_step`.

  On a card the networks are compiled. With `bfloat16` they run under autocast.

  Args:
    sizes: D, K, S.
  """
  torch.manual_seed(0)
  encoder, decoder = (network.to(device) for network in networks(sizes[0]))
  if device != 'cpu':
    encoder, decoder = compiled(encoder), compiled(decoder)
  coder = Coder(name, sizes).to(device)
  parameters = [*encoder.parameters(), *decoder.parameters()]
  optimizer = torch.optim.Adam([*parameters, *coder.parameters()], lr=1e-3)
  average = [p.detach().clone() for p in parameters]
  batch = torch.from_numpy(images).to(device)

  def autocast() -> contextlib.AbstractContextManager:
    return torch.autocast(device, torch.bfloat16, enabled=bfloat16)

  def run() -> None:
    x = batch.permute(0, 3, 1, 2).float() / 255 - 0.5
    with autocast():
      z = encoder(x)
    quantized, loss = coder(z.float())
    with autocast():
      decoded = decoder(quantized)
    loss = loss + 10 * F.mse_loss(decoded.float(), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
      torch._foreach_lerp_(average, parameters, 1e-3)
      for atoms in coder.parameters():
        atoms.copy_(F.normalize(atoms, dim=0))

  return run
