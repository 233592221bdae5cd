"""Priors of latents: what draws new images from a decoder."""
