"""Geneformer's encoder (Theodoris et al. 2023, Nature): a BERT over ranked genes, read out around its last layer.

C cells, L tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.layers import PostNormBlock, masked_mean

LEFT_OUT = {-1: 1, 0: 0}  # last layers that are not run, by upstream's `emb_layer`
MODES = ("cell", "cls")


@dataclass(frozen=True)
class Config:
    """Sizes of one checkpoint, from its config.json; `layers` counts all, also one that `emb_layer` leaves out."""

    n_tokens: int
    positions: int
    dim: int
    heads: int
    inner: int
    layers: int
    token_types: int = 2
    activation: str = "relu"
    eps: float = 1e-12
    dropout: float = 0.0


class BertBlock(PostNormBlock):
    """BERT's layer: as its parent, without dropout inside the feed-forward."""

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(attended))
        return self.norm2(x + self.dropout(self.linear2(self.activation(self.linear1(x)))))


class Network(nn.Module):
    """From padded tokens to one vector a cell; settings as in upstream's `EmbExtractor`.

    `emb_layer` -1 reads the output of the second to last layer (the last is neither loaded nor run), 0 that of the
    last. `emb_mode` "cell" is the mean over the genes; "cls" is the first token, upstream's own default for V2.
    """

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.dim = config.dim
        self.mode = _known("emb_mode", settings, MODES)
        self.token = nn.Embedding(config.n_tokens, config.dim)
        self.position = nn.Embedding(config.positions, config.dim)
        self.token_type = nn.Embedding(config.token_types, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config) for _ in range(layers_run(config.layers, settings)))

    def hidden(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output of the last block that is run: ids and mask (C, L) -> (C, L, D)."""
        x = self.token(ids) + self.token_type.weight[0] + self.position.weight[: ids.shape[1]]  # (C, L, D)
        x = self.dropout(self.norm(x))
        for block in self.blocks:
            x = block(x, mask)
        return x

    def forward(self, ids: Tensor, mask: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        """Give the mean over the genes (`pooled`, (C, L) bool) or, in mode "cls", the first token: (C, L) -> (C, D)."""
        x = self.hidden(ids, mask)
        return x[:, 0] if self.mode == "cls" else masked_mean(x, pooled)


def _block(config: Config) -> BertBlock:
    sizes = (config.dim, config.heads, config.inner)
    return BertBlock(*sizes, activation=config.activation, eps=config.eps, dropout=config.dropout)


def layers_run(layers: int, settings: Mapping[str, Any]) -> int:
    """Count the layers that an embedding needs; raises `InvalidInput` for another `emb_layer` than upstream's two."""
    return layers - LEFT_OUT[_known("emb_layer", settings, tuple(LEFT_OUT))]


def _known(name: str, settings: Mapping[str, Any], choices: tuple[Any, ...]) -> Any:
    if settings[name] in choices:
        return settings[name]
    message = f"{name}={settings[name]!r} is not known."
    raise InvalidInput(message, f"Give one of {', '.join(map(repr, choices))}.")
