"""scFoundation (Hao et al. 2024)."""
