"""CellLM: tokens of the expressed genes, padded to a fixed length that counts."""
