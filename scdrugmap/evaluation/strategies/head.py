"""What a head is to the strategies that fit one: vectors and labels in, P(resistant) out.

Z is (n_cells, dim); labels are "sensitive" or "resistant", (n_cells,). `heads` is the registry of those that there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from scdrugmap.data.labels import is_sensitive
from scdrugmap.errors import InvalidInput, LabelsMissing

State = dict[str, np.ndarray]


class FeatureMatrix(Protocol):
    """What a head needs of vectors, (n_cells, dim): an array, a memory map, or rows that are read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells and width."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


class Head(Protocol):
    """What every head does. Z is (n_cells, dim) float, labels "sensitive" or "resistant"."""

    def fit(self, Z: FeatureMatrix, labels: Iterable[object], validation: np.ndarray | None = None) -> Head:
        """Learn from labelled cells; `validation`, (n_cells,) bool, marks those that choose the epoch."""

    def predict_proba(self, Z: FeatureMatrix) -> np.ndarray:
        """Return P(resistant), (n_cells,) float32."""

    def state(self) -> State:
        """Return the fitted head as arrays."""


def resistant_of(Z: FeatureMatrix, labels: Iterable[object]) -> np.ndarray:
    """Return which training cells are resistant, (n_cells,) bool; raise where nothing can be learned."""
    resistant = ~is_sensitive(labels)
    if len(resistant) != len(Z):
        message = f"There are {len(resistant)} labels for {len(Z)} cells."
        raise InvalidInput(message, "Give one label a cell.")
    if resistant.all() or not resistant.any():
        label = "resistant" if resistant.all() and len(resistant) else "sensitive"
        message = f"All {len(resistant)} training cells are {label}: a head needs both classes."
        raise LabelsMissing(message, "Train on data sets that have sensitive and resistant cells.")
    return resistant
