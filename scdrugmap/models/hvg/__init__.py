"""Baseline: the most variable genes, log-normalised."""
