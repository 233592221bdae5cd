"""Denoising diffusion: schedules, the loss, and solvers."""

from lasers_jax.diffusion.loss import diffusion_loss, draw_times
from lasers_jax.diffusion.schedule import Interpolant, Schedule, Straight
from lasers_jax.diffusion.solvers import SOLVERS, sample
from lasers_jax.diffusion.waves import waves

__all__ = [
  'SOLVERS',
  'Interpolant',
  'Schedule',
  'Straight',
  'diffusion_loss',
  'draw_times',
  'sample',
  'waves',
]
