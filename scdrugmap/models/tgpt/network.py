"""tGPT's network (Shen et al. 2023, iScience): a GPT-2 over ranked genes, the mean of its last hidden states read out.

C cells, L tokens, D model width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from scdrugmap.models.core.layers import Attention, masked_mean


@dataclass(frozen=True)
class Config:
    """Sizes of one checkpoint, from its config.json."""

    n_tokens: int
    positions: int
    dim: int
    heads: int
    inner: int
    layers: int
    eps: float = 1e-5
    dropout: float = 0.0


class CausalAttention(Attention):
    """Self-attention in which a token sees itself and those before it.

    Padding stands on the right, where no real token looks, so that no mask is needed.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(C, L, D) -> (C, L, D)."""
        query, key, value = (self._split(linear(x)) for linear in (self.q_proj, self.k_proj, self.v_proj))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (C, H, L, D / H)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # (C, L, D)


class GPT2Block(nn.Module):
    """x += attention(LN(x)); x += W2 gelu(W1 LN(x)), with the tanh form of GELU."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.eps)
        self.attention = CausalAttention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.linear1 = nn.Linear(config.dim, config.inner)
        self.linear2 = nn.Linear(config.inner, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(C, L, D) -> (C, L, D)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        inner = F.gelu(self.linear1(self.norm2(x)), approximate="tanh")  # (C, L, inner)
        return x + self.dropout(self.linear2(inner))


class Network(nn.Module):
    """From padded tokens to one vector a cell; settings: `token_types`.

    The published model was trained with token types of zero, which GPT-2 looks up in its word table: the vector of
    `<pad>` (row 0) is added at every position.
    """

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.dim = config.dim
        self.token_types = bool(settings["token_types"])
        self.token = nn.Embedding(config.n_tokens, config.dim)
        self.position = nn.Embedding(config.positions, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(GPT2Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)

    def hidden(self, ids: Tensor) -> Tensor:
        """Output of the last block after the final norm: (C, L) -> (C, L, D)."""
        x = self.token(ids) + self.position.weight[: ids.shape[1]]  # (C, L, D)
        if self.token_types:
            x = x + self.token.weight[0]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, ids: Tensor, pooled: Tensor) -> Tensor:
        """Give the mean over the genes (`pooled`, without start and end token): both (C, L) -> (C, D)."""
        return masked_mean(self.hidden(ids), pooled)
