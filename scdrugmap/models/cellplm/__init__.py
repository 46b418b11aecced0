"""CellPLM: cells as tokens that attend to each other."""
