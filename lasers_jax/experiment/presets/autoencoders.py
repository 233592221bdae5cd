"""Autoencoders with one latent vector an image, for priors to be fitted to.

ae, vae, beta_vae, wae, info_vae and rae differ in the loss of their latents.
The weights are those of the papers' objectives for half the squared error
summed over an image; where a paper names none, `assumed`.
"""

from lasers_jax.errors import unknown
from lasers_jax.experiment.presets import bottlenecks
from lasers_jax.experiment.presets.bottlenecks import Section


def choose(name: str, pixels: int) -> tuple[Section, Section]:
  """Returns the sections `bottleneck` and `loss.weights` of an autoencoder.

  Args:
    name: of an autoencoder.
    pixels: the numbers of an image, over all channels that differ.

  Raises:
    InputError: there is no such autoencoder.
  """
  if name not in _AUTOENCODERS:
    raise unknown('the autoencoder', name, _AUTOENCODERS)
  bottleneck, own = _AUTOENCODERS[name]
  section, weights = bottlenecks.choose(bottleneck)
  weights.update(pixel=pixels / 2, **own)
  return section, weights


_AUTOENCODERS = {
  'ae': ('none', {}),
  'vae': ('kl', {'kl': 1.0}),
  'beta_vae': ('kl', {'kl': 0.1}),  # assumed: PMFS does not say which beta
  'wae': ('wae', {'mmd': 100.0}),  # WAE: 10, with 0.05 of the squared error
  'info_vae': ('info_vae', {'info': 1.0}),  # alpha = 0, lambda_ = 100 assumed
  'rae': ('rae', {'norm': 1e-4, 'decoder_norm': 1e-7}),  # of RAE's own code
}
