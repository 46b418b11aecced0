"""Blocks that several models share. C cells, L tokens, D model width, H heads.

Attention keeps separate query, key, value and output linears and calls them as modules: adapters on torch's own
fused attention train nothing, because it reads the weights past the module.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class Attention(nn.Module):
    """Full self-attention over the tokens of each cell; keys where the mask is False are not seen."""

    def __init__(self, dim: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim, bias=bias)
        self.k_proj = nn.Linear(dim, dim, bias=bias)
        self.v_proj = nn.Linear(dim, dim, bias=bias)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(C, L, D) and mask (C, L) bool -> (C, L, D)."""
        return self.attend(x, x, mask)

    def attend(self, asking: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let tokens (C, N, D) look at the tokens (C, L, D) -> (C, N, D); a mask of floats is added to the scores."""
        query, key, value = (
            self._split(part) for part in (self.q_proj(asking), self.k_proj(x), self.v_proj(x))
        )  # (C, H, N or L, D / H)
        seen = None if mask is None else mask[:, None, None, :]  # (C, 1, 1, L)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)  # (C, H, N, D / H)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # (C, N, D)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (C, H, L, D / H)


class PostNormBlock(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + W2 act(W1 x)): torch's TransformerEncoderLayer with norm_first=False."""

    def __init__(
        self, dim: int, heads: int, inner: int, *, activation: str = "relu", eps: float = 1e-5, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.linear1 = nn.Linear(dim, inner)
        self.linear2 = nn.Linear(inner, dim)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(C, L, D) and mask (C, L) bool -> (C, L, D)."""
        return self._finish(x, self.attention(x, mask))

    def first(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give the first token of what `forward` gives, (C, L, D) -> (C, D): all that is needed of a last block."""
        asking = x[:, :1]
        return self._finish(asking, self.attention.attend(asking, x, mask))[:, 0]

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(attended))
        inner = self.dropout(self.activation(self.linear1(x)))  # (C, N, inner)
        return self.norm2(x + self.dropout(self.linear2(inner)))


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens (C, L, D) -> (C, D) where the mask (C, L) is True; zeros for a cell that has none."""
    if mask is None:
        return x.mean(dim=1)
    kept = mask.unsqueeze(-1).to(x.dtype)  # (C, L, 1)
    return (x * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def unit(x: Tensor) -> Tensor:
    """Rows of (C, D) divided by their L2 norm, in float32."""
    x = x.float()
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
