"""Data sets, labels, genes, and the loader through which every matrix enters."""
