"""CellLM's encoder (Zhao et al. 2023): level and gene embeddings summed, a Performer, <cls> out.

C cells, L tokens with their pads, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.layers import masked_mean
from scdrugmap.models.core.performer import Performer, Sizes

POOLINGS = ("cls", "mean", "mean_all_positions")  # upstream itself has no cell embedding


@dataclass(frozen=True)
class Config(Sizes):
    """Sizes of one checkpoint and, from its configuration, the length to which cells are padded."""

    max_length: int


class Network(Performer):
    """From tokens and pads to one vector a cell; settings: `pooling` and `compat`."""

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__(config, shared_maximum=settings["compat"] == "upstream")
        self.max_length = config.max_length
        self.pooling = settings["pooling"]
        if self.pooling not in POOLINGS:
            message = f"pooling='{self.pooling}' is not known."
            raise InvalidInput(message, f"Give one of {', '.join(POOLINGS)}.")

    def embed(self, ids: Tensor, genes: Tensor) -> Tensor:
        """Give what enters the first block: ids and genes (C, L) -> (C, L, D)."""
        return self.token(ids) + self.position(genes)

    def hidden(self, ids: Tensor, genes: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        """Final norm, zero at pads: ids, genes, mask and weight (C, L) -> (C, L, D)."""
        x = self.run(self.embed(ids, genes), mask, weight, slice(None))
        return x * mask.unsqueeze(-1)

    def forward(self, ids: Tensor, genes: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        """Give <cls>, the mean over tokens, or the sum over tokens by the padded length: (C, L) -> (C, D)."""
        if self.pooling == "cls":
            return self.run(self.embed(ids, genes), mask, weight, slice(0, 1))[:, 0]
        x = self.hidden(ids, genes, mask, weight)
        return masked_mean(x, mask) if self.pooling == "mean" else x.sum(dim=1) / self.max_length
