"""Metrics of images, of codes and of sets of images, by name."""
