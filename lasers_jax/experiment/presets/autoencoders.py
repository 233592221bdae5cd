"""Autoencoders with one latent vector an image, for priors to be fitted to.

ae, vae, beta_vae, wae, info_vae and rae differ in what holds their latents. The
weights are those of the papers' objectives for half the squared error summed
over an image; where a paper names none, `assumed`.
"""

from ml_collections import ConfigDict

from lasers_jax.errors import unknown
from lasers_jax.experiment.presets import bottlenecks


def choose(name: str, pixels: int) -> tuple[ConfigDict, ConfigDict]:
  """Returns the sections `bottleneck` and `loss.weights` of an autoencoder.

  `pixels` are the numbers of an image, all channels counted that differ.
  """
  if name not in _AUTOENCODERS:
    raise unknown('the autoencoder', name, _AUTOENCODERS)
  bottleneck, own = _AUTOENCODERS[name]
  section, weights = bottlenecks.choose(bottleneck)
  weights.update(pixel=pixels / 2, **own)
  return section, weights


_AUTOENCODERS = {
  'ae': ('none', dict()),
  'vae': ('kl', dict(kl=1.0)),
  'beta_vae': ('kl', dict(kl=0.1)),  # assumed: PMFS does not say which beta
  'wae': ('wae', dict(mmd=100.0)),  # WAE: 10, with 0.05 of the squared error
  'info_vae': ('info_vae', dict(info=1.0)),  # alpha = 0, lambda_ = 100 assumed
  'rae': ('rae', dict(norm=1e-4, decoder_norm=1e-7)),  # of RAE's own code
}
