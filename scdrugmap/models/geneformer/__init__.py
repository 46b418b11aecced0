"""Geneformer: a cell is its genes, ranked by expression over their typical expression."""
