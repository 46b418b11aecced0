"""scGPT's encoder (Cui et al. 2024, Nature Methods): gene and value embeddings summed, post-norm blocks, <cls> out.

C cells, L tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from scdrugmap.models.core.layers import PostNormBlock, unit

MAX_VALUE = 512.0  # scgpt.model.ContinuousValueEncoder


@dataclass(frozen=True)
class Config:
    """Sizes of one checkpoint, from its args.json and vocab.json."""

    n_tokens: int
    dim: int
    heads: int
    inner: int
    layers: int
    dropout: float = 0.0


class ValueEncoder(nn.Module):
    """Linear, ReLU, linear, norm over a single number."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(1, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, values: Tensor) -> Tensor:
        """(C, L) -> (C, L, D)."""
        x = values.clamp(max=MAX_VALUE).unsqueeze(-1)  # (C, L, 1)
        return self.norm(self.linear2(F.relu(self.linear1(x))))


class Network(nn.Module):
    """From padded tokens to one vector a cell; settings: `normalise`."""

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.dim = config.dim
        self.normalise = bool(settings["normalise"])
        self.gene = nn.Embedding(config.n_tokens, config.dim)
        self.gene_norm = nn.LayerNorm(config.dim)
        self.value = ValueEncoder(config.dim)
        self.blocks = nn.ModuleList(
            PostNormBlock(config.dim, config.heads, config.inner, dropout=config.dropout) for _ in range(config.layers)
        )

    def hidden(self, ids: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output of the last block: ids, values and mask (C, L) -> (C, L, D)."""
        return self.blocks[-1](self._before_last(ids, values, mask), mask)

    def forward(self, ids: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give <cls> of the last block, of unit length unless `normalise` is off: (C, L) -> (C, D)."""
        last = cast("PostNormBlock", self.blocks[-1])
        cls = last.first(self._before_last(ids, values, mask), mask)  # (C, D)
        return unit(cls) if self.normalise else cls

    def _before_last(self, ids: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Input of the last block: ids, values and mask (C, L) -> (C, L, D)."""
        x = self.gene_norm(self.gene(ids)) + self.value(values)  # (C, L, D)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        return x
