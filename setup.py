"""The packages of the wheel: the library, and configs/ as a part of it."""

from setuptools import find_packages, setup

setup(
  packages=[*find_packages(include=['lasers_jax*']), 'lasers_jax.configs'],
  package_dir={'lasers_jax.configs': 'configs'},
)
