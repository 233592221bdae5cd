"""Priors over maps of codes and latents: modules with a loss and a draw."""
