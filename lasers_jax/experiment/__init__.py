"""Whole runs: a config becomes objects, a trained model and its results."""
