"""From unlabelled cells to P(resistant), calibrated and flagged where it is novel."""
