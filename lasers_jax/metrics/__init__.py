"""Measures of images, of codes and of sets of images: one file a measure."""
