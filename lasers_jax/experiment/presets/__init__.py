"""Parts of configs by name: bottlenecks, decoders, autoencoders."""
