"""scGPT-mini: our own small checkpoint for scGPT's code."""
