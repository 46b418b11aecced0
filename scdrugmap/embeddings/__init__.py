"""Embeddings of cells, computed once and cached."""
