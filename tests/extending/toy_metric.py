"""A metric from outside the package: the mean absolute error of an image.

import toy_metric  # before the evaluation that names it
lj.evaluate('runs/photos', metrics=('mae',))
"""

import jax.numpy as jnp

from lasers_jax.metrics.base import of_function
from lasers_jax.metrics.registry import METRICS, Metric
from lasers_jax.networks.masks import site_means


def mean_absolute_error(a, b, sizes=None):
  """Returns the mean absolute error of each image, float32 [B], 0 to 1.

  a, b: [B, h, w, 3] in [0, 1]. With `sizes`, int32 [B, 2], images are so high
  and wide, at the top left: `site_means` leaves the padding out.
  """
  return site_means(jnp.abs(a - b), sizes).mean(axis=1)


# The row is all that is known of a metric: results, tables, the report and the
# command line read it. `load` is given the file of weights that the user named.
METRICS['mae'] = Metric(
  title='MAE',
  higher_is_better=False,
  over='image',  # one value an image; 'set' is one for all images
  protocol='mean absolute error, peak 1, mean of one value per image',
  load=lambda file: of_function(mean_absolute_error),
  headline=True,  # a tile at the top of the report
  ranks=True,  # the report shows the best and the worst images by it
)
