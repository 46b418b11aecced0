"""scFoundation's encoder (Hao et al. 2024, Nature Methods): soft value bins, gene rows, post-norm blocks, four pools.

C cells, L tokens, D model width, B value bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.layers import PostNormBlock, masked_mean

POOLS = ("all", "max")
FEED_FORWARD = 4  # times the width, in upstream's encoder


@dataclass(frozen=True)
class Config:
    """Sizes of one checkpoint, from the config inside models.ckpt."""

    n_rows: int  # genes, T, S and padding
    dim: int
    heads: int
    layers: int
    bins: int
    bin_alpha: float
    dropout: float = 0.1


class ValueBins(nn.Module):
    """A number as a soft mixture of learned bins (upstream's AutoDiscretizationEmbedding2)."""

    def __init__(self, bins: int, dim: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.spread = nn.Linear(1, bins)
        self.mix = nn.Linear(bins, bins)
        self.table = nn.Embedding(bins, dim)

    def forward(self, values: Tensor) -> Tensor:
        """(C, L) -> (C, L, D)."""
        x = F.leaky_relu(self.spread(values.unsqueeze(-1)), 0.1)  # (C, L, B)
        weights = (self.mix(x) + self.alpha * x).softmax(dim=-1)  # (C, L, B)
        return weights @ self.table.weight


class Network(nn.Module):
    """From padded tokens to one vector a cell; setting `pool`: "all" (S, T, maximum, mean: 4 D) or "max" (D)."""

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.pool = settings["pool"]
        if self.pool not in POOLS:
            raise InvalidInput(f"pool='{self.pool}' is not known.", f"Give one of {', '.join(POOLS)}.")
        self.dim = config.dim * (4 if self.pool == "all" else 1)
        self.value = ValueBins(config.bins, config.dim, config.bin_alpha)
        self.gene = nn.Embedding(config.n_rows, config.dim)
        self.blocks = nn.ModuleList(
            PostNormBlock(config.dim, config.heads, FEED_FORWARD * config.dim, dropout=config.dropout)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)

    def embed(self, ids: Tensor, values: Tensor) -> Tensor:
        """What the first block sees: ids and values (C, L) -> (C, L, D)."""
        return self.value(values) + self.gene(ids)

    def hidden(self, ids: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output after the final norm: ids, values and mask (C, L) -> (C, L, D)."""
        x = self.embed(ids, values)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def forward(self, ids: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool each cell's own tokens: (C, L) -> (C, 4 D) or (C, D)."""
        x = self.hidden(ids, values, mask)
        seen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask  # (C, L)
        if self.pool == "max":
            return masked_max(x, seen)
        lengths = seen.sum(dim=1)  # (C,)
        genes = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None] - 2  # (C, L), all but the last two
        parts = [token_at(x, lengths - 1), token_at(x, lengths - 2), masked_max(x, genes), masked_mean(x, genes)]
        return torch.cat(parts, dim=1)


def token_at(x: Tensor, positions: Tensor) -> Tensor:
    """The token of each cell at a position, (C, L, D) and (C,) -> (C, D); zeros where the position is negative."""
    rows = torch.arange(len(x), device=x.device)
    return x[rows, positions.clamp(min=0)] * (positions >= 0).unsqueeze(-1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Maximum over the tokens (C, L, D) -> (C, D) where the mask (C, L) is True; zeros for a cell that has none."""
    highest = x.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1)
    return torch.where(mask.any(dim=1, keepdim=True), highest, torch.zeros_like(highest))
