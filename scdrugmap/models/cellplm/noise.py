"""The random numbers that upstream's CellPLM draws while it embeds, in its order, from torch's own generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def upstream_uniform(sizes: Sequence[int], clusters: int, latent: int, seed: int) -> np.ndarray:
    """Numbers behind the Gumbel noise for forwards of `sizes` cells one after the other, (sum(sizes), clusters).

    Before them a data loader draws one number; after each forward's come normal numbers that change nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    drawn = [np.empty((0, clusters), dtype=np.float32)]
    for size in sizes:
        drawn.append(torch.rand((size, clusters), generator=generator).numpy())
        torch.randn((size, latent), generator=generator)
    return np.concatenate(drawn)
