"""The names of the arrays of residual networks, by family.

Paths are those of the Flax parameters of `networks.resnet`.
"""

from typing import NamedTuple


class Family(NamedTuple):
  """Holds the words of which a family makes the names of its arrays.

  Attributes:
    encoder_level, decoder_level: of level i, in the order of the file.
    finest_first: whether the levels of the decoder are counted so.
    middle: of the middle, and of its two blocks and the attention between.
  """

  encoder_level: str
  decoder_level: str
  finest_first: bool
  block: str
  attention: str
  down: str
  up: str
  middle: tuple[str, str, str, str]
  norm_out: str
  shortcut: str
  norm: str
  qkv: tuple[str, str, str]
  out: str


DIFFUSERS = Family(
  encoder_level='down_blocks.{}',
  decoder_level='up_blocks.{}',
  finest_first=False,
  block='resnets.{}',
  attention='attentions.{}',
  down='downsamplers.0.conv',
  up='upsamplers.0.conv',
  middle=('mid_block', 'resnets.0', 'attentions.0', 'resnets.1'),
  norm_out='conv_norm_out',
  shortcut='conv_shortcut',
  norm='group_norm',
  qkv=('to_q', 'to_k', 'to_v'),
  out='to_out.0',
)
# diffusers before 0.17 (see `_convert_deprecated_attention_blocks` there).
OLD_DIFFUSERS = DIFFUSERS._replace(
  qkv=('query', 'key', 'value'), out='proj_attn'
)
# taming-transformers, and latent diffusion after it.
TAMING = Family(
  encoder_level='down.{}',
  decoder_level='up.{}',
  finest_first=True,
  block='block.{}',
  attention='attn.{}',
  down='downsample.conv',
  up='upsample.conv',
  middle=('mid', 'block_1', 'attn_1', 'block_2'),
  norm_out='norm_out',
  shortcut='nin_shortcut',
  norm='norm',
  qkv=('q', 'k', 'v'),
  out='proj_out',
)

_ENDS = {'Conv_0': 'conv_in', 'to_latent': 'conv_out', 'to_image': 'conv_out'}


def names_of(
  family: Family, side: str, levels: int, modules: tuple[str, ...]
) -> list[str]:
  """Returns the names of what a module of ours is in a family.

  Args:
    side: 'encoder' or 'decoder'.
    levels: how many the network has.
    modules: the path of the module, such as ('Level_0', 'ResidualBlock_1').

  Returns:
    One name; three for `qkv`, which lie side by side.
  """
  outer, *inner = modules
  if outer == 'from_latent':
    return ['post_quant_conv']
  if outer in _ENDS:
    return [f'{side}.{_ENDS[outer]}']
  if outer == 'GroupNorm_0':
    return [f'{side}.{family.norm_out}']
  if outer == 'Middle_0':
    first, *parts = family.middle
    kinds = 'ResidualBlock_0', 'Attention_0', 'ResidualBlock_1'
    words = [first, dict(zip(kinds, parts, strict=True))[inner[0]]]
    return _within(family, f'{side}.{".".join(words)}', inner)
  kind, _, number = outer.partition('_')
  level = _level(family, side, levels, int(number))
  if kind == 'DownConv':
    return [f'{level}.{family.down}']
  if kind == 'NearestUpConv':
    return [f'{level}.{family.up}']
  kind, _, number = inner[0].partition('_')
  word = family.block if kind == 'ResidualBlock' else family.attention
  return _within(family, f'{level}.{word.format(number)}', inner)


def _level(family: Family, side: str, levels: int, number: int) -> str:
  if side == 'encoder':
    return f'{side}.{family.encoder_level.format(number)}'
  i = levels - 1 - number if family.finest_first else number
  return f'{side}.{family.decoder_level.format(i)}'


def _within(family: Family, prefix: str, inner: list[str]) -> list[str]:
  """The names of a part of a residual block, or of an attention."""
  block, part = inner
  if block.startswith('Attention'):
    parts = {'GroupNorm_0': [family.norm], 'out': [family.out]}
    parts['qkv'] = list(family.qkv)
  else:
    parts = {'GroupNorm_0': ['norm1'], 'GroupNorm_1': ['norm2']}
    parts |= {'Conv_0': ['conv1'], 'Conv_1': ['conv2']}
    parts['shortcut'] = [family.shortcut]
  return [f'{prefix}.{name}' for name in parts[part]]
