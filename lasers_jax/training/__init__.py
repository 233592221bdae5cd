"""The trainer: state, objective, step, optimizer, checkpoints."""
