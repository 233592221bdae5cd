"""Denoising diffusion: the schedule, the loss, and solvers."""

from lasers_jax.diffusion.loss import diffusion_loss, draw_times
from lasers_jax.diffusion.schedule import Schedule
from lasers_jax.diffusion.solvers import SOLVERS, sample

__all__ = ['SOLVERS', 'Schedule', 'diffusion_loss', 'draw_times', 'sample']
