"""Computations that wait to be asked for: the way of cells past a cache key made of plain strings and ints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Key:
    """All that decides an embedding: equal keys mean equal numbers."""

    model: str
    weights: str  # "sha256:..." over the upstream files
    recipe: int  # of the model's card
    settings: str  # "sha256:..." over the settings and the precision
    data: str  # "sha256:..." over the content of the shard's cells
    shard: int

    def arguments(self) -> dict[str, str | int]:
        """Give the arguments of the cached function."""
        return asdict(self)


_PENDING: dict[Key, Callable[[], np.ndarray]] = {}


@contextmanager
def waiting(key: Key, work: Callable[[], np.ndarray]) -> Iterator[None]:
    """Let `compute` find `work` under `key` meanwhile."""
    _PENDING[key] = work
    try:
        yield
    finally:
        _PENDING.pop(key, None)


def compute(**key: str | int) -> np.ndarray:
    """Run the work that waits under this key; the cached function calls it when the store has no answer."""
    return _PENDING[Key(**key)]()  # type: ignore[arg-type]
