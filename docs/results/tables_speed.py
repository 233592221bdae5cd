"""The tables of times and speeds."""

from tables import Column, Table, signed

TABLES = {
  'speed-omp': Table(
    'speed-omp',
    (
      Column('N×D×K×S', 'shape'),
      Column('`omp`, ms', 'milliseconds', 'g'),
      Column('SPAMS, 2 threads', 'spams_2', 'g'),
      Column('SPAMS, 1 thread', 'spams_1', 'g'),
      Column('scikit-learn', 'sklearn', 'g'),
      Column('PyTorch package', 'torch', 'g'),
      Column('SPAMS : `ols`', 'ols_spams_2', 'g'),
      Column('`omp` : bound', 'floor', 'g'),
      Column('`ols` : bound', 'ols_floor', 'g'),
      Column('error of `ols`, %', 'ols_error', signed),
    ),
  ),
  'speed-bottlenecks': Table(
    'speed-bottlenecks',
    (
      Column('bottleneck', 'name'),
      Column('forward, ms', 'forward', 'g'),
      Column('both, ms', 'both', 'g'),
      Column('MiB', 'mib'),
      Column('peer: forward', 'peer_forward', 'g'),
      Column('both', 'peer_both', 'g'),
      Column('MiB', 'peer_mib'),
      Column('peer : ours, forward', 'ratio_forward', '.2f'),
      Column('both', 'ratio_both', '.2f'),
    ),
  ),
  'speed-step': Table(
    'speed-step',
    (
      Column('step', 'name'),
      Column('ms', 'milliseconds', '.1f'),
      Column('images a second', 'images_per_second'),
      Column('× JAX vq', 'ratio', '.2f'),
      Column('PyTorch : JAX', 'peer_ratio', '.2f'),
      Column('% in the bottleneck', 'bottleneck'),
    ),
  ),
  'speed-layers': Table(
    'speed-layers',
    (
      Column('layer', 'name'),
      Column('JAX, ms', 'milliseconds', '.2f'),
      Column('PyTorch, ms', 'peer', '.2f'),
      Column('PyTorch : JAX', 'ratio', '.2f'),
    ),
  ),
  'speed-decoders': Table(
    'speed-decoders',
    (
      Column('decoder', 'name'),
      Column('ms an image', 'milliseconds', '.2f'),
      Column('× the first', 'ratio', '.1f'),
      Column('MiB', 'mib'),
    ),
  ),
  'speed-priors': Table(
    'speed-priors',
    (
      Column('prior', 'name'),
      Column('fit, s', 'fit', 'g'),
      Column('draw, s', 'draw', 'g'),
      Column('an iteration of EM, s', 'iteration', 'g'),
      Column('scikit-learn : its fit', 'fit_ratio', 'g'),
      Column('draw', 'draw_ratio', 'g'),
      Column('iteration', 'iteration_ratio', 'g'),
      Column('MiB', 'mib'),
    ),
  ),
  'speed-codec': Table(
    'speed-codec',
    (
      Column('codec', 'name'),
      Column('bits per pixel', 'bits_per_pixel', '.3g'),
      Column('encode, MP/s', 'encode', '.2f'),
      Column('% in the range coder', 'encode_coder', '.0f'),
      Column('decode, MP/s', 'decode', '.2f'),
      Column('% in the range coder', 'decode_coder', '.0f'),
    ),
  ),
  'speed-data': Table(
    'speed-data',
    (
      Column('images', 'name'),
      Column('a CPU second, before', 'before'),
      Column('now', 'now'),
    ),
  ),
}
