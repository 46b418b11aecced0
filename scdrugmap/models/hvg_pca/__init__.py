"""Baseline: principal components of the most variable genes."""
