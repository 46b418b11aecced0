"""CellPLM's encoder (Wen et al. 2024, ICLR): summed gene vectors, flow attention over cells, a mixture's mean.

N cells that see each other, T gene counts of them together, D model width, H heads, E head width, K mixture components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 4  # of the embedder's norm
EPS = 1e-6  # of flow attention
TINY = 1e-20  # keeps the logarithms of upstream's Gumbel noise finite


@dataclass(frozen=True)
class Config:
    """Sizes of one checkpoint, from its config and its tensors."""

    n_genes: int
    dim: int
    heads: int
    layers: int
    clusters: int
    hidden: int  # width of the mixture's hidden layer
    latent: int
    dropout: float = 0.0


class FlowAttention(nn.Module):
    """Attention linear in cells (Wu et al. 2022, "Flowformer"): sources compete, sinks allocate, nothing is masked."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        query, key, value = (self._split(linear(x)) for linear in (self.q_proj, self.k_proj, self.v_proj))
        with torch.autocast(x.device.type, enabled=False):
            mixed = flow(query.float().sigmoid(), key.float().sigmoid(), value.float())  # (H, N, E)
        return self.out_proj(mixed.transpose(0, 1).flatten(1))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)  # (H, N, E)


def flow(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mix values by the flow from cells that are asked (key) to cells that ask (query), all (H, N, E)."""
    incoming = 1 / _meet(query, key.sum(dim=1, keepdim=True))  # (H, N, 1)
    outgoing = 1 / _meet(key, query.sum(dim=1, keepdim=True))
    sink = _meet(query, (key * outgoing).sum(dim=1, keepdim=True))
    source = _meet(key, (query * incoming).sum(dim=1, keepdim=True)).clamp(-1, 1)
    competition = source.softmax(dim=1) * source.shape[1]
    summary = key.transpose(1, 2) @ (value * competition)  # (H, E, E)
    return (query * incoming) @ summary * sink.sigmoid()


def _meet(x: Tensor, total: Tensor) -> Tensor:
    """Flow between each cell of x (H, N, E) and a sum over cells (H, 1, E); (H, N, 1)."""
    return ((x + EPS) * (total + EPS)).sum(dim=-1, keepdim=True)


class FlowformerBlock(nn.Module):
    """x += attention(LN(x)); x += W2 gelu(W1 LN(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = FlowAttention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim)
        self.linear1 = nn.Linear(config.dim, 2 * config.dim)
        self.linear2 = nn.Linear(2 * config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        inner = self.dropout(F.gelu(self.linear1(self.norm2(x))))  # (N, 2 D)
        return x + self.dropout(self.linear2(inner))


class Network(nn.Module):
    """From the counts of cells that see each other to one vector a cell."""

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.dim = config.latent
        self.gene = nn.EmbeddingBag(config.n_genes, config.dim, mode="sum")
        self.linear = nn.Linear(config.dim, config.dim)
        self.norm = nn.GroupNorm(GROUPS, config.dim)
        self.blocks = nn.ModuleList(FlowformerBlock(config) for _ in range(config.layers))
        self.last_norm = nn.LayerNorm(config.dim)
        self.component = nn.Linear(config.dim, config.clusters)
        self.mixture = nn.Linear(config.dim + config.clusters, config.hidden)
        self.mean = nn.Linear(config.hidden, config.latent)

    def embed(self, ids: Tensor, values: Tensor, starts: Tensor) -> Tensor:
        """Sum of each cell's gene vectors, weighted by its values: ids, values (T,), starts (N,) -> (N, D)."""
        summed = self.gene(ids, starts, per_sample_weights=values)
        return self.norm(F.relu(self.linear(summed)))

    def hidden(self, ids: Tensor, values: Tensor, starts: Tensor) -> Tensor:
        """Output of the last block: ids, values (T,), starts (N,) -> (N, D)."""
        x = self.embed(ids, values, starts)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, ids: Tensor, values: Tensor, starts: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Give the mean of each cell's mixture component: ids, values (T,), starts (N,) -> (N, latent).

        The component is the likeliest one, or, with numbers `uniform` (N, K) from 0 to 1, drawn as upstream does.
        """
        x = self.last_norm(self.hidden(ids, values, starts))  # (N, D)
        chosen = self.choose(self.component(x), uniform).to(x.dtype)
        return self.mean(F.relu(self.mixture(torch.cat([x, chosen], dim=-1))))

    def choose(self, logits: Tensor, uniform: Tensor | None = None) -> Tensor:
        """One 1 a cell at its component: logits and numbers `uniform` from 0 to 1 (N, K) -> (N, K) int64."""
        logits = logits.float()
        if uniform is not None:
            logits = logits - torch.log(-torch.log(uniform + TINY) + TINY)
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1])
