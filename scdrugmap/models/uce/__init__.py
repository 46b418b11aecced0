"""UCE: genes sampled by expression, as protein vectors in genome order."""
