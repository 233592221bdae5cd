"""The protocol of measurement, and the scores of sets of images."""
