"""Data sets, labels, genes, and the one door through which every matrix enters."""
