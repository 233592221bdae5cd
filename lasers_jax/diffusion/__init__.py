"""Denoising diffusion: the schedule, the loss, and samplers."""

from lasers_jax.diffusion.loss import diffusion_loss, draw_times
from lasers_jax.diffusion.samplers import SAMPLERS, sample
from lasers_jax.diffusion.schedule import Schedule

__all__ = ['SAMPLERS', 'Schedule', 'diffusion_loss', 'draw_times', 'sample']
