"""A small MQ-VAE, and its networks by their equations in float64."""

import jax
import numpy as np

from lasers_jax.bottlenecks import MQVAE, VQ

D, K = 8, 16
INNER = VQ(D=D, K=K)


def mqvae(inner=INNER, **fields):
  given = {'D': D, 'inner': inner, 'width': 16, 'blocks': 1}
  return MQVAE(**{**given, **fields})


def layer_norm(x, weights=None):
  x = x - x.mean(axis=-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
  return x if weights is None else x * weights['scale'] + weights['bias']


def dense(x, weights):
  return x @ weights['kernel'] + weights['bias']


def conv(x, weights):
  """3x3, of sites beyond the border zero."""
  _, h, w, _ = x.shape
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  taps = [
    x[:, i : i + h, j : j + w] @ weights['kernel'][i, j]
    for i in range(3)
    for j in range(3)
  ]
  return sum(taps) + weights['bias']


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def scores_of(params, z):
  params = jax.tree.map(np.float64, params['score'])
  x = np.float64(z)
  x = x - x.mean(axis=(1, 2, 3), keepdims=True)
  x = x / np.sqrt((x**2).mean(axis=(1, 2, 3), keepdims=True) + 1e-5)
  x = np.maximum(conv(x, params['Conv_0']), 0)
  x = layer_norm(x, params['LayerNorm_0'])
  kernel, bias = params['Conv_1']['kernel'][0, 0], params['Conv_1']['bias']
  return sigmoid(x @ kernel + bias)[..., 0]


def block(x, params):
  h = x
  for i in range(2):
    h = layer_norm(h, params[f'LayerNorm_{i}'])
    h = conv(h * sigmoid(h), params[f'Conv_{i}'])
  return x + h


def attention(q, k, v, trust):
  weights = np.exp(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5)
  weights = weights / weights.sum(axis=-1, keepdims=True)
  return weights * trust[:, None] @ v


def demasked(params, grid, trust, blocks):
  params = jax.tree.map(np.float64, params)
  x = conv(dense(np.float64(grid), params['Dense_0']), params['Conv_0'])
  b, h, w, _ = x.shape
  for i in range(blocks):
    x = block(x, params[f'ResidualBlock_{i}'])
    own = params[f'TrustingAttention_{i}']
    qkv = dense(layer_norm(x, own['LayerNorm_0']), own['Dense_0'])
    q, k, v = np.split(qkv.reshape(b, h * w, -1), 3, axis=-1)
    y = attention(q, k, v, trust.reshape(b, -1) ** 0.5**i)
    x = x + dense(y.reshape(x.shape), own['Dense_1'])
  x = layer_norm(
    block(x, params[f'ResidualBlock_{blocks}']), params['LayerNorm_0']
  )
  return dense(x * sigmoid(x), params['Dense_1'])
