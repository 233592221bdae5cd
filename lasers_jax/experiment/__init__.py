"""Whole runs: from a config to objects, training, trained models, results."""
