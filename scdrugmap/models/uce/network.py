"""UCE's encoder (Rosen et al. 2023): protein vectors and sine positions, post-norm blocks, a decoder of <cls>.

C cells, L tokens, P width of a protein vector, D model width, E width of an embedding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.layers import PostNormBlock, unit

log = logging.getLogger(__name__)
HEAD_DIM = 64  # of both releases; the files do not say it


@dataclass(frozen=True)
class Config:
    """Sizes of one checkpoint, from its tensors."""

    n_tokens: int
    token_dim: int
    positions: int
    dim: int
    inner: int
    layers: int
    decoder: int  # width of the decoder's first layer
    out_dim: int
    heads: int | None = None
    dropout: float = 0.05


class DecoderBlock(nn.Module):
    """Linear, norm, GELU."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out_dim)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(C, D) -> (C, E)."""
        return F.gelu(self.norm(self.linear(x)))


class Network(nn.Module):
    """From padded tokens to one unit vector a cell; settings: `heads` and `compat`.

    Upstream hands its padding mask to torch as a float, which is added to the scores: padding is seen, and favoured by
    1. `compat="upstream"` does the same; otherwise padding is not seen.
    """

    table: Tensor
    sines: Tensor

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.dim = config.out_dim
        self.additive = settings["compat"] == "upstream"
        heads = settings["heads"] or config.heads or _usual_heads(config.dim)
        if not isinstance(heads, int) or heads < 1 or config.dim % heads:
            message = f"heads={heads!r} does not divide the network's width of {config.dim}."
            raise InvalidInput(message, "Leave it out for the published weights.")
        self.register_buffer("table", torch.randn(config.n_tokens, config.token_dim))
        self.register_buffer("sines", torch.randn(config.positions, 1, config.dim))
        self.token = nn.Linear(config.token_dim, config.dim)
        self.token_norm = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            PostNormBlock(config.dim, heads, config.inner, dropout=config.dropout) for _ in range(config.layers)
        )
        widths = (config.dim, config.decoder, config.out_dim, config.out_dim)
        self.decoder = nn.ModuleList(DecoderBlock(*pair) for pair in pairwise(widths))
        self.out = nn.Linear(config.out_dim, config.out_dim)

    def embed(self, ids: Tensor) -> Tensor:
        """Rows of the token table, (C, L) -> (C, L, D); a token of several cells is worked out once."""
        distinct, place = ids.unique(return_inverse=True)
        x = F.normalize(self.table[distinct], dim=-1)  # (distinct, P)
        return (self.token_norm(F.gelu(self.token(x))) * math.sqrt(self.token.out_features))[place]

    def hidden(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output of the last block: ids and mask (C, L) -> (C, L, D)."""
        x, mask = self._before_last(ids, mask)
        return self.blocks[-1](x, mask)

    def decoded(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give the decoder's answer to <cls>, before it is made a unit vector: (C, L) -> (C, E)."""
        x, mask = self._before_last(ids, mask)
        x = cast("PostNormBlock", self.blocks[-1]).first(x, mask)  # (C, D)
        for block in self.decoder:
            x = block(x)
        return self.out(x)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give <cls> of the decoder as a unit vector: ids and mask (C, L) -> (C, E)."""
        return unit(self.decoded(ids, mask))

    def _before_last(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Input (C, L, D) of the last block, and the mask as attention takes it."""
        x = self.embed(ids) + self.sines[: ids.shape[1], 0]  # (C, L, D)
        if mask is not None and self.additive:
            mask = 1 - mask.to(x.dtype)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        return x, mask


def _usual_heads(dim: int) -> int:
    """Heads of 64 channels, or a single one where the width is no multiple of that."""
    if dim % HEAD_DIM == 0:
        return dim // HEAD_DIM
    log.warning("a UCE of width %d is none of the published ones; it runs with one head unless heads= is given", dim)
    return 1
