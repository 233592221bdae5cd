"""The same training step in plain PyTorch, for comparison."""

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
  chosen = torch.empty(len(signals), 0, dtype=torch.long)
  rows = torch.arange(len(signals))
  for k in range(s):
    best = correlations.abs()
    best[rows[:, None], chosen] = -1
    chosen = torch.cat([chosen, best.argmax(1, keepdim=True)], 1)
    system = gram[chosen[:, :, None], chosen[:, None]] + 1e-6 * torch.eye(k + 1)
    factor = torch.linalg.cholesky(system)
    right = start.gather(1, chosen)[..., None]
    coefficients = torch.cholesky_solve(right, factor)[..., 0]
    correlations = start - torch.einsum(
      'ns,nsk->nk', coefficients, gram[chosen]
    )
  return chosen, coefficients


def build(
  name: str, images: np.ndarray, d: int, k: int, s: int
) -> Callable[[], None]:
  """Builds a function that does one step; see `train_step.jax_step`."""
  torch.manual_seed(0)
  encoder, decoder = networks(d)
  atoms = nn.Parameter(F.normalize(torch.randn(d, k), dim=0))
  codes = 0.1 * torch.randn(k, d)
  counts, sums = torch.ones(k), codes.clone()
  parameters = [*encoder.parameters(), *decoder.parameters()]
  optimizer = torch.optim.Adam(
    parameters + [atoms] * (name == 'lasers'), lr=1e-3
  )
  average = [p.detach().clone() for p in parameters]
  batch = torch.from_numpy(images)

  def bottleneck(z):
    signals = z.permute(0, 2, 3, 1).reshape(-1, d)
    if name == 'none':
      return z, 0.0
    if name == 'vq':
      quantized, extra = quantize(signals.detach(), codes, counts, sums), 0.0
    else:
      unit = F.normalize(atoms, dim=0)
      chosen, coefficients = sparse_code(signals.detach(), unit.detach(), s)
      quantized = torch.einsum('ns,nsd->nd', coefficients, unit.T[chosen])
      extra = F.mse_loss(quantized, signals.detach())
      quantized = quantized.detach()
    loss = extra + 0.25 * F.mse_loss(signals, quantized)
    passed = signals + (quantized - signals).detach()
    b, _, h, w = z.shape
    return passed.reshape(b, h, w, d).permute(0, 3, 1, 2), loss

  def run() -> None:
    x = batch.permute(0, 3, 1, 2).float() / 255 - 0.5
    quantized, loss = bottleneck(encoder(x))
    loss = loss + 10 * F.mse_loss(decoder(quantized), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
      torch._foreach_lerp_(average, parameters, 1e-3)
      atoms.copy_(F.normalize(atoms, dim=0))

  return run
