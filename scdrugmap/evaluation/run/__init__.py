"""Experiments, done: one at a time, in processes, on GPUs or on a cluster."""
