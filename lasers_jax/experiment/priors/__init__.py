"""Runs of map priors: priors over the codes and latents of trained models."""
