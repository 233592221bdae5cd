import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.priors.maps import transformer
from lasers_jax.priors.maps.transformer import Block, Transformer

B, H, W, WIDTH, HEADS, LAYERS = 3, 2, 3, 16, 2, 2
T, D = H * W, WIDTH // HEADS
GRID = np.stack(np.divmod(np.arange(T), W), -1)[None].astype('i4')
CAUSAL = np.tril(np.ones((T, T), bool))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, WIDTH)).astype('f4')
CONDITION = RNG.normal(size=(B, WIDTH)).astype('f4')


def model(conditioned, **fields):
  return Transformer(WIDTH, LAYERS, HEADS, conditioned=conditioned, **fields)


@pytest.fixture(scope='module', params=[False, True], ids=['plain', 'adaln'])
def built(request):
  """A transformer, its parameters with noise, the condition, the output."""
  net = model(request.param)
  condition = CONDITION if request.param else None
  start = jax.jit(net.init)(jax.random.key(0), X, GRID, CAUSAL, condition)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda a: np.asarray(a) + rng.normal(0, 0.2, a.shape).astype('f4'), start
  )
  full = jax.jit(net.apply)(params, X, GRID, CAUSAL, condition)
  return net, start, params, condition, full


def silu(x):
  return x / (1 + np.exp(-x))


def rms(x, scale=1.0):
  return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * scale


def turned(x):
  """Each pair of numbers as a complex one, turned: x [B, T, heads, d]."""
  out = np.empty_like(x)
  n = D // 4
  for t in range(T):
    for axis in range(2):
      for i in range(n):
        a, b = axis * 2 * n + i, axis * 2 * n + n + i
        angle = GRID[0, t, axis] * 100.0 ** (-i / n)
        z = (x[:, t, :, a] + 1j * x[:, t, :, b]) * np.exp(1j * angle)
        out[:, t, :, a], out[:, t, :, b] = z.real, z.imag
  return out


def attention(p, h):
  q, k, v = np.split(h @ p['qkv']['kernel'], 3, -1)
  q, k, v = (x.reshape(B, T, HEADS, D) for x in (q, k, v))
  q = turned(rms(q, p['norm_q']['scale']))
  k = turned(rms(k, p['norm_k']['scale']))
  out = np.zeros_like(q)
  for b in range(B):
    for head in range(HEADS):
      for t in range(T):
        scores = k[b, : t + 1, head] @ q[b, t, head] / np.sqrt(D)
        weights = np.exp(scores - scores.max())
        out[b, t, head] = weights / weights.sum() @ v[b, : t + 1, head]
  return out.reshape(B, T, WIDTH) @ p['out']['kernel']


def swiglu(p, h):
  gate, up = np.split(h @ p['up']['kernel'], 2, -1)
  return silu(gate) * up @ p['down']['kernel']


def modulation(p, condition, parts):
  (dense,) = p['modulation'].values()
  out = silu(condition) @ dense['kernel'] + dense['bias']
  return [x[:, None] for x in np.split(out, parts, -1)]


def transcribed(params, condition):
  """The whole transformer in float64, from the papers."""
  params = jax.tree.map(lambda a: a.astype('f8'), params['params'])
  x = X.astype('f8')
  for layer in range(LAYERS):
    p = jax.tree.map(lambda a, i=layer: a[i], params['block'])
    for name, act in ('attention', attention), ('mlp', swiglu):
      if condition is None:
        h = rms(x, p[f'norm_{name}']['scale'])
        x = x + act(p['mlp'] if name == 'mlp' else p, h)
      else:
        parts = modulation(p, condition, 6)
        shift, scale, gate = parts[3:] if name == 'mlp' else parts[:3]
        h = rms(x) * (1 + scale) + shift
        x = x + gate * act(p['mlp'] if name == 'mlp' else p, h)
  if condition is None:
    return rms(x, params['norm']['scale'])
  shift, scale = modulation(params, condition, 2)
  return rms(x) * (1 + scale) + shift


def test_equals_a_transcription_in_float64(built):
  _, _, params, condition, full = built
  np.testing.assert_allclose(full, transcribed(params, condition), atol=2e-5)


def test_cached_steps_equal_the_full_pass(built):
  net, _, params, condition, full = built
  step = jax.jit(
    lambda *args: net.apply(params, *args, condition, method='step')
  )
  cache = net.empty_cache(B, T)
  for t in range(T):
    y, cache = step(X[:, t], GRID[0, t], t, cache)
    np.testing.assert_allclose(y, full[:, t], atol=1e-5)


def test_conditioned_layers_start_as_the_identity_and_all_learn(built):
  net, start, _, condition, _ = built
  if condition is not None:
    first = jax.jit(net.apply)(start, X, GRID, CAUSAL, condition)
    np.testing.assert_allclose(first, rms(X), atol=1e-5)

  def loss(params):
    return jnp.sum(net.apply(params, X, GRID, CAUSAL, condition) ** 3)

  gradients = jax.jit(jax.grad(loss))(start)['params']['block']
  if condition is None:
    moved = gradients['out']['kernel'], gradients['mlp']['down']['kernel']
  else:
    moved = jax.tree.leaves(gradients['modulation'])
  for gradient in moved:
    assert np.all(np.any(gradient != 0, axis=tuple(range(1, gradient.ndim))))


def test_parameters_are_stacked_and_matrices_are_kernels(built):
  _, start, _, condition, _ = built
  for path, x in jax.tree_util.tree_leaves_with_path(start['params']['block']):
    assert len(x) == LAYERS
    assert (path[-1].key == 'kernel') == (x.ndim == 3)
    assert condition is not None or path[-1].key in ('kernel', 'scale')
  kernel = start['params']['block']['qkv']['kernel']
  assert np.abs(kernel[0] - kernel[1]).max() > 0.1  # each has its own numbers


def test_nothing_of_later_sites_is_seen(built):
  net, _, params, condition, full = built
  changed = X.copy()
  changed[:, 3] += 1
  found = jax.jit(net.apply)(params, changed, GRID, CAUSAL, condition)
  np.testing.assert_array_equal(found[:, :3], full[:, :3])
  assert np.all(np.abs(found[:, 3:] - full[:, 3:]).max(-1) > 1e-4)


def test_remat_changes_no_gradient():
  def gradients(remat):
    net = model(False, remat=remat, dropout=0.2)
    params = jax.jit(net.init)(jax.random.key(0), X, GRID)
    params = jax.tree.map(lambda a: a + 0.1, params)
    rngs = {'dropout': jax.random.key(1)}

    def loss(params):
      return jnp.sum(net.apply(params, X, GRID, train=True, rngs=rngs) ** 2)

    return jax.tree.leaves(jax.jit(jax.grad(loss))(params))

  for a, b in zip(gradients(False), gradients(True), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_rotated_products_depend_on_differences_alone():
  q, k = RNG.normal(size=(2, 1, 1, 1, D)).astype('f4')

  def product(a, b):
    at = np.array([[[a]], [[b]]], np.int32).reshape(2, 1, 1, 2)
    return np.sum(
      np.asarray(transformer.rotate(q, at[0]) * transformer.rotate(k, at[1]))
    )

  first = product((0, 1), (2, 0))
  assert first == pytest.approx(product((5, 8), (7, 7)), abs=1e-5)
  for other in (1, 0), (2, 1), (3, 0):
    assert abs(first - product((0, 1), other)) > 1e-3


def test_softmax_and_norms_are_of_float32():
  net = Block(WIDTH, HEADS, dtype=jnp.bfloat16)
  x = X.astype(jnp.bfloat16)
  params = jax.eval_shape(net.init, jax.random.key(0), x, GRID)
  assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(params))
  assert jax.eval_shape(net.apply, params, x, GRID).dtype == jnp.bfloat16
  text = str(jax.make_jaxpr(net.apply)(params, x, GRID))
  reduced = [line for line in text.splitlines() if 'reduce_sum' in line]
  assert reduced
  assert not any('bf16' in line.split('=')[0] for line in reduced)
  (exponent,) = (line for line in text.splitlines() if ' exp ' in line)
  assert ':f32' in exponent.split('=')[0]


def test_hidden_width_is_a_multiple_of_eight():
  widths = [transformer.swiglu_width(w) for w in (16, 128, 384, 1024)]
  assert widths == [40, 344, 1024, 2728]
