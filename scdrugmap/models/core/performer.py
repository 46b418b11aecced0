"""FAVOR+ attention (Choromanski et al. 2021, "Rethinking attention with Performers") and the stack that scBERT and
CellLM build of it: pre-norm blocks over token and gene embeddings.

C cells, L positions, B positions of one chunk, D model width, H heads, E head width, M random features.

A position's features are exp(u - n - top) + `FLOOR`, where u are M projections and n half the squared length. `FLOOR`
does not cancel, so what `top` is the maximum of decides the result: over the M features of one query, but over all
heads, positions and features of a cell's keys. (Upstream's keys take it over the whole batch: `shared_maximum`.)

Attention is linear in L, and only x (C, L, D) is ever whole: one pass over chunks sums the keys up, rescaling the sum
when a chunk raises the maximum, and a second pass lets each chunk ask the sum. Chunks fit the cache of a CPU. In half
precision the exponents and their maximum stay float32; features are halved only once they lie between 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

FLOOR = 1e-4
LOG2_E = math.log2(math.e)  # exponents are kept in bits: exp2 is several times as fast as exp on a CPU
CHUNK_ROWS = {"cpu": 256, "cuda": 16_384}  # positions of all cells of a chunk; a CPU takes as many per thread

Piece = tuple[Tensor, Tensor | None, Tensor | None]  # normed x (C, B, D), mask (C, B), weight (C, B)


@dataclass(frozen=True)
class Sizes:
    """Sizes of one checkpoint, from its tensors."""

    n_tokens: int
    n_positions: int  # rows of the gene table
    dim: int
    heads: int
    dim_head: int
    features: int
    inner: int
    layers: int


class FavorAttention(nn.Module):
    """Linear attention by positive random features; the projection is a fixed buffer and never drawn anew."""

    projection: Tensor

    def __init__(self, sizes: Sizes, *, shared_maximum: bool = False) -> None:
        super().__init__()
        inner = sizes.heads * sizes.dim_head
        self.heads = sizes.heads
        self.over = (0, 1, 2, 3) if shared_maximum else (1, 2, 3)  # axes of (C, H, B, M) under one key maximum
        self.to_q = nn.Linear(sizes.dim, inner, bias=False)
        self.to_k = nn.Linear(sizes.dim, inner, bias=False)
        self.to_v = nn.Linear(sizes.dim, inner, bias=False)
        self.to_out = nn.Linear(inner, sizes.dim)
        self.register_buffer("projection", torch.randn(sizes.features, sizes.dim_head))

    def summarise(self, pieces: Iterable[Piece]) -> Tensor:
        """Sum of key features times [value, 1] over all positions, (C, H, M, E + 1).

        Where the mask is False a value counts as zero; `weight` says how many positions a key stands for.
        """
        top, soft, flat = (self.projection.new_full((), start) for start in (-math.inf, 0.0, 0.0))
        for x, mask, weight in pieces:
            key, value = self._split(self.to_k(x)), self._split(self.to_v(x))
            with torch.autocast(x.device.type, enabled=False):
                bits, length = self._bits(key)
                new = torch.maximum(top, bits.amax(self.over, keepdim=True))  # (C, 1, 1, 1)
                features = _exp2(bits, length + new).to(value.dtype)  # (C, H, B, M)
                values = _with_ones(value, mask, weight)  # (C, H, B, E + 1)
                soft = soft * torch.exp2(top - new) + features.transpose(-1, -2) @ values  # (C, H, M, E + 1)
                flat = flat + values.sum(dim=2, keepdim=True, dtype=bits.dtype)  # (C, H, 1, E + 1)
                top = new
        return soft + FLOOR * flat

    def attend(self, x: Tensor, summary: Tensor) -> Tensor:
        """(C, B, D) and what `summarise` gave -> (C, B, D)."""
        query = self._split(self.to_q(x))
        with torch.autocast(x.device.type, enabled=False):
            bits, length = self._bits(query)
            features = _exp2(bits, length + bits.amax(-1, keepdim=True)).to(query.dtype)  # (C, H, B, M)
            flat = FLOOR * summary.sum(dim=2, keepdim=True)  # (C, H, 1, E + 1)
            mixed = features @ summary.to(query.dtype) + flat  # (C, H, B, E + 1)
            mixed = mixed[..., :-1] / mixed[..., -1:]  # (C, H, B, E)
        return self.to_out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (C, H, B, E)

    def _bits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Projections u (C, H, B, M) and half squared lengths n (C, H, B, 1), both times log2(e), in float32."""
        x = x.float() * x.shape[-1] ** -0.25
        return F.linear(x, self.projection * LOG2_E), x.square().sum(-1, keepdim=True) * (LOG2_E / 2)


class PerformerBlock(nn.Module):
    """x += attention(LN(x)); x += W2 gelu(W1 LN(x)), chunk by chunk."""

    compiles = False  # how many chunks there are depends on the cell: each number would be translated anew

    def __init__(self, sizes: Sizes, *, shared_maximum: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.dim)
        self.attention = FavorAttention(sizes, shared_maximum=shared_maximum)
        self.norm2 = nn.LayerNorm(sizes.dim)
        self.w1 = nn.Linear(sizes.dim, sizes.inner)
        self.w2 = nn.Linear(sizes.inner, sizes.dim)

    def forward(self, x: Tensor, mask: Tensor | None, weight: Tensor | None, needed: slice) -> Tensor:
        """(C, L, D), mask and weight (C, L) -> the `needed` positions of the L, (C, ..., D)."""
        width = chunk_width(x)
        xs = x.split(width, dim=1)
        masks = [None] * len(xs) if mask is None else mask.split(width, dim=1)
        weights = [None] * len(xs) if weight is None else weight.split(width, dim=1)
        summary = self.attention.summarise(
            (self.norm1(part), m, w) for part, m, w in zip(xs, masks, weights, strict=True)
        )
        return torch.cat([self._update(part, summary) for part in x[:, needed].split(width, dim=1)], dim=1)

    def _update(self, x: Tensor, summary: Tensor) -> Tensor:
        x = x + self.attention.attend(self.norm1(x), summary)
        return x + self.w2(F.gelu(self.w1(self.norm2(x))))


class Performer(nn.Module):
    """Token and gene embeddings, blocks and a final norm; the models say what goes in and which rows come out."""

    def __init__(self, sizes: Sizes, *, shared_maximum: bool = False) -> None:
        super().__init__()
        self.dim = sizes.dim
        self.token = nn.Embedding(sizes.n_tokens, sizes.dim)
        self.position = nn.Embedding(sizes.n_positions, sizes.dim)
        self.blocks = nn.ModuleList(PerformerBlock(sizes, shared_maximum=shared_maximum) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.dim)

    def run(self, x: Tensor, mask: Tensor | None, weight: Tensor | None, needed: slice) -> Tensor:
        """Embedded tokens (C, L, D), mask and weight (C, L) -> the `needed` rows of the final norm, (C, ..., D).

        With gradients on, a block keeps only its input and is computed again on the way back: at published lengths
        the features of all layers would take gigabytes a cell.
        """
        for index, block in enumerate(self.blocks):
            rows = needed if index == len(self.blocks) - 1 else slice(None)
            if torch.is_grad_enabled():
                x = checkpoint(block, x, mask, weight, rows, use_reentrant=False)
            else:
                x = block(x, mask, weight, rows)
        return self.norm(x)


def chunk_width(x: Tensor) -> int:
    """Positions of each cell of x (C, L, D) that one chunk takes."""
    rows = CHUNK_ROWS["cuda"] if x.is_cuda else CHUNK_ROWS["cpu"] * torch.get_num_threads()
    return max(1, rows // max(1, len(x)))


def _exp2(bits: Tensor, shift: Tensor) -> Tensor:
    """2 to the power of bits (C, H, B, M) - shift; in place where no gradient needs the exponents."""
    if torch.is_grad_enabled():
        return torch.exp2(bits - shift)
    return bits.sub_(shift).exp2_()


def _with_ones(value: Tensor, mask: Tensor | None, weight: Tensor | None) -> Tensor:
    """Values with one more column that counts the keys: (C, H, B, E) -> (C, H, B, E + 1)."""
    if mask is None or weight is None:
        return F.pad(value, (0, 1), value=1.0)
    counted = weight[:, None, :, None].to(value.dtype).expand(*value.shape[:-1], 1)  # (C, H, B, 1)
    return torch.cat([value * mask[:, None, :, None], counted], dim=-1)
