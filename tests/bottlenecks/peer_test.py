"""Ours against the same bottlenecks in vector_quantize_pytorch 1.32.0.

Both get the same input and the same parameters. Where the two mean different
things ours is held to the equation, and a comment says what differs.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.binary import BSQ, LFQ
from lasers_jax.bottlenecks.fsq import FSQ
from lasers_jax.bottlenecks.simvq import SimVQ
from lasers_jax.bottlenecks.vq import VQ
from lasers_jax.bottlenecks.wrappers import Product, Residual
from lasers_jax.coding import binary, finite

B, N, D, K, BITS, LEVELS = 4, 16, 8, 16, 5, (4, 3, 5, 8)
LEARNABLE = {'learnable_codebook': True, 'ema_update': False}


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype('f4')


Z, C = normal(0, B, N, D), normal(1, B, N, D)  # C: the decoder's gradient
CODES = normal(2, K, D)
ALL = np.ones((B, N), bool)
MASK = np.arange(N)[None] < np.array([[16], [5], [0], [9]])


# Not on import, where all who only collect tests would wait for it.
@pytest.fixture(scope='module', autouse=True)
def libraries():
  global torch, peer
  torch = pytest.importorskip('torch', reason='the peer is written in it')
  with pytest.MonkeyPatch.context() as patch:
    # Else a part of the peer loads the compiler of torch, for seconds.
    patch.setattr(torch.compiler, 'allow_in_graph', lambda function: function)
    peer = pytest.importorskip(
      'vector_quantize_pytorch', reason='ours is held against it'
    )


class Step(NamedTuple):
  latent: Any
  written: dict
  to_params: dict
  to_z: np.ndarray


def ours(module, variables, z=Z, c=C, mask=None, **weights):
  """A step in training, with the gradients of the sum of c q and of losses.

  The losses count by their weights times the size of z, as much as the sum.
  """

  @jax.jit
  def step(variables, z, c, mask):
    def total(params, z):
      latent, written = module.apply(
        {**variables, 'params': params}, z, True, mask, mutable=['codebook']
      )
      loss = sum(w * latent.losses[name] for name, w in weights.items())
      return jnp.sum(latent.quantized * c) + z.size * loss, (latent, written)

    params = variables.get('params', {})
    return jax.grad(total, (0, 1), has_aux=True)(params, z)

  gradients, aux = jax.tree.map(np.asarray, step(variables, z, c, mask))
  return Step(*aux, *gradients)


def theirs(module, z=Z, c=C, **options):
  """The same of theirs: quantized, indices, losses if any, gradient to z."""
  z = torch.tensor(z, requires_grad=True)
  quantized, indices, *losses = module(z, **options)
  total = torch.sum(quantized * torch.tensor(c))
  (total + z.numel() * sum(x.sum() for x in losses)).backward()
  return quantized, indices, losses, z.grad


def near(ours, theirs, tolerance=1e-5):
  if isinstance(theirs, torch.Tensor):
    theirs = theirs.detach().numpy()
  np.testing.assert_allclose(ours, theirs, tolerance, tolerance)


def agree(step, theirs, where=ALL, tolerance=1e-5):
  """Compares codes, values and gradients to z; returns the losses of both."""
  quantized, indices, losses, to_z = theirs
  codes = step.latent.codes
  codes = np.stack(codes, axis=-1) if isinstance(codes, tuple) else codes
  np.testing.assert_array_equal(codes[where], indices[where])
  near(step.latent.quantized[where], quantized[where])
  near(step.to_z[where], to_z[where], tolerance)
  return step.latent.losses, *losses


def with_codes(home='codebook', codes=CODES):
  """Variables of VQ; code 0 is next to unused."""
  use = np.linspace(0, 2, K, dtype='f4') + np.float32(1e-5)
  if home == 'params':
    return {'params': {'codes': codes}, 'codebook': {'use': use}}
  sums = codes * use[:, None]
  return {'codebook': {'codes': codes, 'use': use, 'sums': sums}}


def their_vq(codes=CODES, **fields):
  fields = {'dim': D, 'codebook_size': K, 'rotation_trick': False, **fields}
  module = peer.VectorQuantize(**fields)
  with torch.no_grad():
    module.codebook = torch.tensor(codes)
  return module


# Their rotation gives the code but for rounding, ours to the last bit.
@pytest.mark.parametrize('gradient', ['straight_through', 'rotation'])
def test_vq_codes_decodes_and_passes_the_gradient(gradient):
  module = their_vq(
    rotation_trick=gradient == 'rotation', commitment_weight=0.25
  )
  step = ours(VQ(D=D, K=K, gradient=gradient), with_codes(), commitment=0.25)
  losses, loss = agree(step, theirs(module))
  near(0.25 * losses['commitment'], loss)


# With a mask, the commitment of their cosine is to z before it has norm 1.
@pytest.mark.parametrize(
  'distance, mask', [('euclidean', MASK), ('cosine', ALL)]
)
def test_vq_moves_codes_by_ema(distance, mask):
  cosine = distance == 'cosine'
  # Means of vectors of norm 1 are shorter. Ours would move together otherwise.
  codes = 0.5 * unit(CODES) if cosine else CODES
  start = with_codes(codes=codes)['codebook']
  module = VQ(D=D, K=K, decay=0.9, distance=distance)
  step = ours(module, {'codebook': start}, mask=mask, commitment=1)
  # Theirs counts sites, and smooths; ours counts 1 for the mean code.
  scale = mask.sum() / K
  codes = unit(CODES) if cosine else CODES
  module = their_vq(codes, use_cosine_sim=cosine, decay=0.9, eps=0)
  counts, sums = module._codebook.cluster_size, module._codebook.embed_avg
  counts[0] = torch.tensor(scale * start['use'])
  sums[0] = torch.tensor(scale * start['sums'])
  options = {} if mask is ALL else {'mask': torch.tensor(mask)}
  # Theirs returns nothing of masked sites; ours codes them as well.
  losses, loss = agree(step, theirs(module, **options), where=mask)
  near(losses['commitment'], loss)
  book = step.written['codebook']
  near(scale * book['use'], counts[0])
  near(scale * book['sums'], sums[0])
  near(unit(book['codes']) if cosine else book['codes'], module.codebook)


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vq_learns_codes_by_the_loss():
  module, both = their_vq(**LEARNABLE), {'codebook': 1, 'commitment': 1}
  step = ours(VQ(D=D, K=K, learning='loss'), with_codes('params'), **both)
  losses, loss = agree(step, theirs(module))
  # Theirs is one mean |z - q|², with gradients to both.
  near(losses['codebook'], loss)
  near(losses['commitment'], loss)
  near(step.to_params['codes'], module._codebook.embed.grad[0])


def test_vq_synchronizes_codes():
  """Huh et al. 2023, equation 21: z receives c, and its code receives ν c.

  Theirs adds ν (q - sg(q)) after q became a copy of z in gradients, so that z
  receives (1 + ν) c, and the codes nothing. So the values alone are theirs.
  """
  module = VQ(D=D, K=K, learning='loss', synchronized=0.3)
  step = ours(module, with_codes('params'))
  module = their_vq(sync_update_v=0.3, **LEARNABLE)
  quantized, indices, losses, _ = theirs(module)
  agree(step, (quantized, indices, losses, C))
  shares = np.zeros((K, D), 'f4')
  np.add.at(shares, step.latent.codes, 0.3 * C)
  near(step.to_params['codes'], shares)


def test_simvq_codes_by_mapped_codes():
  linear = normal(3, D, D)
  params = {'map': linear, 'bias': np.zeros(D, 'f4')}  # the bias is ours alone
  variables = {'params': params, 'codebook': {'codes': CODES}}
  step = ours(SimVQ(D=D, K=K), variables, codebook=1, commitment=0.25)
  module = peer.SimVQ(dim=D, codebook_size=K, rotation_trick=False)
  module.frozen_codebook.copy_(torch.tensor(CODES))
  module.code_transform.weight.data = torch.tensor(linear.T)
  losses, loss = agree(step, theirs(module))
  near(losses['codebook'] + 0.25 * losses['commitment'], loss)
  near(step.to_params['map'], module.code_transform.weight.grad.T)


@pytest.mark.parametrize('depth', [2, 3])
def test_residual_vq_codes_what_is_left(depth):
  """The loss of the first level is that of VQ; others follow from means."""
  books = [normal(7 + i, K, D) / 2**i for i in range(depth)]
  names = ['inner', 'copies_1', 'copies_2'][:depth]
  levels = [with_codes(codes=x)['codebook'] for x in books]
  variables = {'codebook': dict(zip(names, levels, strict=True))}
  module = Residual(D=D, depth=depth, inner=VQ(D=D, K=K))
  step = ours(module, variables, commitment=depth)
  module = peer.ResidualVQ(
    dim=D, num_quantizers=depth, codebook_size=K, rotation_trick=False
  )
  for layer, codes in zip(module.layers, books, strict=True):
    layer.codebook = torch.tensor(codes)
  # Each of their levels passes c to z, which would receive depth times c.
  step = step._replace(to_z=step.to_z - C)
  losses, each = agree(step, theirs(module, c=0 * C))
  near(losses['commitment'], each.mean())


def test_product_vq_codes_slices():
  books = normal(8, 2, K, D // 2)
  first, second = (with_codes(codes=x)['codebook'] for x in books)
  variables = {'codebook': {'inner': first, 'copies_1': second}}
  module = Product(D=D, groups=2, inner=VQ(D=D // 2, K=K))
  step = ours(module, variables, commitment=1)
  heads = {'heads': 2, 'separate_codebook_per_head': True}
  module = their_vq(books, codebook_dim=D // 2, **heads)
  losses, loss = agree(step, theirs(module))
  near(losses['commitment'], loss)


def with_maps(width):
  """Variables of the linear maps from D to scalars and back."""
  narrow = {'kernel': normal(3, D, width) / 3, 'bias': normal(4, width)}
  widen = {'kernel': normal(5, width, D), 'bias': normal(6, D)}
  return {'params': {'narrow': narrow, 'widen': widen}}


def share_maps(variables, module):
  """Gives theirs our linear maps, and returns them by our names."""
  layers = {'narrow': module.project_in, 'widen': module.project_out}
  for name, layer in layers.items():
    layer.weight.data = torch.tensor(variables['params'][name]['kernel'].T)
    layer.bias.data = torch.tensor(variables['params'][name]['bias'])
  return layers


def test_fsq_rounds_as_theirs_but_next_to_a_threshold():
  """Theirs bounds by 1 + ε and shifts by atanh; ours by 1 - ε and tan.

  That moves a scalar by less than 0.01 steps, here of up to 8 levels. Levels
  of 2, where atanh is infinite for ε = 0, theirs refuses.
  """
  variables, module = with_maps(len(LEVELS)), peer.FSQ(LEVELS, dim=D)
  share_maps(variables, module)
  narrow = variables['params']['narrow']
  scalars = Z.reshape(-1, D) @ narrow['kernel'] + narrow['bias']
  steps = np.asarray(finite.bound(scalars, LEVELS)) * (np.array(LEVELS) // 2)
  sure = np.all(np.abs(steps % 1 - 0.5) > 0.01, axis=1).reshape(B, N)
  assert sure.mean() > 0.8
  step = ours(FSQ(D=D, levels=LEVELS), variables)
  agree(step, theirs(module), where=sure, tolerance=1e-2)
  every = finite.to_digits(np.arange(np.prod(LEVELS), dtype='i4'), LEVELS)
  near(finite.level_values(every, LEVELS), module.implicit_codebook)


def their_binary(cls, bits, gamma, **fields):
  weights = {'entropy_loss_weight': 1.0, 'commitment_loss_weight': 1.0}
  fields = {'diversity_gamma': gamma, **weights, **fields}
  module = peer.LFQ(codebook_size=2**bits, spherical=cls is BSQ, **fields)
  module.mask.copy_(module.mask.flip(0))  # theirs has the first bit highest
  return module


# Theirs takes no logarithm of less than 1e-5, so that its entropy is a little
# low where there are such probabilities: at temperatures below these.
@pytest.mark.parametrize('cls, temperature', [(LFQ, 8.0), (BSQ, 1.0)])
def test_binary_codes_are_signs_with_the_entropy_of_a_site(cls, temperature):
  variables, module = with_maps(BITS), their_binary(cls, BITS, 0.0, dim=D)
  layers = share_maps(variables, module)
  both = {'entropy': 1, 'commitment': 1}
  fields = {'D': D, 'bits': BITS, 'temperature': temperature, 'gamma': 0.0}
  step = ours(cls(**fields), variables, mask=MASK, **both)
  options = {'mask': torch.tensor(MASK), 'inv_temperature': 1 / temperature}
  losses, loss = agree(step, theirs(module, **options), tolerance=1e-4)
  near(losses['entropy'] + losses['commitment'], loss)
  for name, layer in layers.items():
    near(step.to_params[name]['kernel'], layer.weight.grad.T, 1e-4)
    near(step.to_params[name]['bias'], layer.bias.grad, 1e-4)


@pytest.mark.parametrize('cls, temperature', [(LFQ, 2.0), (BSQ, 1.0)])
def test_binary_entropy_of_the_mean_of_independent_bits(cls, temperature):
  """Of all combinations of bits, each of which is set at 2 sites of 3.

  Theirs sums over all codes, ours over bits: here the same.
  """
  values = ((x, x, -x) for x in (0.3, 0.6, 0.9, -1.2))
  z = np.array([list(itertools.product(*values))], 'f4')
  same = {'kernel': np.eye(4, dtype='f4'), 'bias': np.zeros(4, 'f4')}
  variables = {'params': {'narrow': same, 'widen': same}}
  both = {'entropy': 1, 'commitment': 1}
  module = cls(D=4, bits=4, temperature=temperature, gamma=0.7)
  step = ours(module, variables, z, 0 * z, **both)
  module = their_binary(cls, 4, 0.7)
  found = theirs(module, z, 0 * z, inv_temperature=1 / temperature)
  losses, loss = agree(step, found, where=...)
  near(losses['entropy'] + losses['commitment'], loss)


def test_binary_entropy_of_the_mean_bounds_theirs():
  """Where bits are not independent, the sum over bits is the greater one."""
  x = normal(9, 1, 4, BITS)
  _, found = their_binary(LFQ, BITS, 1.0)(
    torch.tensor(x), inv_temperature=0.5, return_loss_breakdown=True
  )
  _, bound = binary.entropies(binary.bit_logits(x[0], 1.0, 2.0), np.ones(4))
  assert found.batch_entropy.item() + 0.1 < bound <= BITS * np.log(2)
