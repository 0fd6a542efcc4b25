"""The suite: what reproduces the paper with the optimizers, and teaches them."""
