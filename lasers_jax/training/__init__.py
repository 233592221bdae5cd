"""A run of training: state, objective, step, checkpoints and its folder."""
