"""Projection on principal components: one linear whose bias holds the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Numbers of chosen genes and of components."""

    n_features: int
    n_components: int


class Network(nn.Module):
    """Scores on the principal components."""

    def __init__(self, config: Config, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.dim = config.n_components
        self.components = nn.Linear(config.n_features, config.n_components)

    def forward(self, values: Tensor) -> Tensor:
        """(C, n_features) -> (C, n_components)."""
        return self.components(values)
