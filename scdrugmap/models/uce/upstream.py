"""The rounding of UCE's own sampling weights, which torch makes: a draw at the edge of two genes depends on it."""

from __future__ import annotations

import numpy as np
import torch


def upstream_weights(counts: np.ndarray) -> np.ndarray:
    """Probability of each kept gene, zeros included: (G,) -> (G,) float32; zeros where nothing is counted.

    Counts are cut off to whole numbers. The second sum runs from gene to gene in float32, as NumPy 2 adds up.
    """
    logs = torch.log1p(torch.from_numpy(counts.astype(np.int64))[None])  # (1, G) float32
    if not logs.any():
        return np.zeros(len(counts), dtype=np.float32)
    weights = (logs / torch.sum(logs))[0].numpy()
    return weights / np.cumsum(weights)[-1]
