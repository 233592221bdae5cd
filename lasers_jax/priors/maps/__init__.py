"""Priors over maps of codes and latents: modules with a loss and a draw."""

from lasers_jax.priors.maps.autoregressive import Autoregressive
from lasers_jax.priors.maps.base import MapPrior
from lasers_jax.priors.maps.flow import Flow
from lasers_jax.priors.maps.masked import Masked

MAP_PRIORS: dict[str, type[MapPrior]] = {
  'ar': Autoregressive,
  'masked': Masked,
  'flow': Flow,
}

__all__ = ['MAP_PRIORS', 'Autoregressive', 'Flow', 'MapPrior', 'Masked']
