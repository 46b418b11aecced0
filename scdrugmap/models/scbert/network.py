"""scBERT's encoder (Yang et al. 2022, Nature Machine Intelligence): level and gene2vec embeddings summed, a Performer.

C cells, L = genes + 1 tokens, D model width. Every gene is a token, so a cell costs the same however many it expresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.performer import Performer
from scdrugmap.models.core.performer import Sizes as Config

# Positions that each pooling looks at; upstream itself has no cell embedding.
POOLINGS = {"mean": slice(None), "genes_mean": slice(0, -1), "last": slice(-1, None), "max": slice(None)}


class Network(Performer):
    """From levels to one vector a cell; settings: `pooling` and `compat`."""

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__(config, shared_maximum=settings["compat"] == "upstream")
        self.pooling = settings["pooling"]
        if self.pooling not in POOLINGS:
            message = f"pooling='{self.pooling}' is not known."
            raise InvalidInput(message, f"Give one of {', '.join(POOLINGS)}.")

    def embed(self, ids: Tensor) -> Tensor:
        """Give what enters the first block: ids (C, L) -> (C, L, D)."""
        return self.token(ids) + self.position.weight

    def hidden(self, ids: Tensor, needed: slice = slice(None)) -> Tensor:
        """Final norm at the `needed` positions: ids (C, L) -> (C, ..., D)."""
        return self.run(self.embed(ids), None, None, needed)

    def forward(self, ids: Tensor) -> Tensor:
        """Pool the final norm over positions: (C, L) -> (C, D)."""
        x = self.hidden(ids, POOLINGS[self.pooling])
        return x.amax(dim=1) if self.pooling == "max" else x.mean(dim=1)
