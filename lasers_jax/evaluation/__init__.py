"""The protocol of measurement, and scores of sets of images."""
