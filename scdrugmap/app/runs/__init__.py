"""One run in full."""
