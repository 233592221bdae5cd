"""Latent patches as signals."""

from jax import Array


def to_patches(z: Array, p: int) -> Array:
  """Cuts a latent map into patches of p×p sites; each patch is a signal.

  Args:
    z: [..., H, W, D].
    p: side of a patch; H and W must be multiples of it.

  Returns:
    [..., H/p, W/p, p·p·D].

  Raises:
    ValueError: p does not divide H and W.
  """
  if p == 1:
    return z
  *lead, h, w, d = z.shape
  if h % p or w % p:
    raise ValueError(f'patches of side {p} do not tile a latent of {h}×{w}')
  z = z.reshape(*lead, h // p, p, w // p, p, d)
  return z.swapaxes(-4, -3).reshape(*lead, h // p, w // p, p * p * d)


def from_patches(signals: Array, p: int) -> Array:
  """Undoes `to_patches`: [..., H/p, W/p, p·p·D] to [..., H, W, D]."""
  if p == 1:
    return signals
  *lead, h, w, d = signals.shape
  d = d // (p * p)
  z = signals.reshape(*lead, h, w, p, p, d).swapaxes(-4, -3)
  return z.reshape(*lead, h * p, w * p, d)
