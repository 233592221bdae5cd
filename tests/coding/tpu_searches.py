"""Prints the types of all searches in pursuits compiled for four TPUs.

The compiler inside libtpu needs no TPU.
"""

import os
import re

os.environ |= {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',  # no metadata server is there to ask
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from lasers_jax import coding

N, D, K, S = 512, 16, 512, 3


def omp(signals, atoms, **options):
  return coding.batch_omp(signals, atoms, S, **options)


FUNCTIONS = (
  omp,
  lambda *problem: omp(*problem, selection='ols'),
  lambda *problem: omp(*problem, precision='bfloat16'),
  lambda signals, atoms: coding.nearest_code(signals, atoms.T),
)


def main() -> None:
  topology = topologies.get_topology_desc(
    platform='tpu', topology_name='v5e:2x2'
  )
  devices = np.array(topology.devices).reshape(2, 2)
  mesh = jax.sharding.Mesh(devices, ('data', 'model'))
  # Where each device has all atoms, one form stands for the others: they
  # search by the same functions.
  for axis, functions in (('model', FUNCTIONS), (None, FUNCTIONS[:1])):
    signals, atoms = (
      jax.ShapeDtypeStruct(
        shape, jnp.float32, sharding=jax.NamedSharding(mesh, jax.P(*split))
      )
      for shape, split in (((N, D), ('data',)), ((D, K), (None, axis)))
    )
    for function in functions:
      program = jax.jit(function).lower(signals, atoms).compile()
      searches = r'= (\(\w+\[.*, s32\[.*?\)) reduce\('
      print(*re.findall(searches, program.as_text()), sep='\n')


if __name__ == '__main__':
  main()
