"""scGPT: gene tokens with binned values."""
