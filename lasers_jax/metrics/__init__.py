"""Metrics of images, of codes and of sets of images: one row a metric."""
