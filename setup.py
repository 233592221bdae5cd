"""The packages of the wheel: the library with its models, and configs/."""

from setuptools import find_packages, setup

setup(
  packages=[
    *find_packages(include=['lasers_jax*']),
    'lasers_jax.configs',
    'lasers_jax.models',
  ],
  package_dir={'lasers_jax.configs': 'configs'},
)
