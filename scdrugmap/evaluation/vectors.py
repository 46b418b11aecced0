"""From cells to the vectors that a head sees, the same question to a model and to a baseline.

A model's embedding of a cell depends on that cell alone, so all are embedded once, through the cache. A baseline is
fitted, its genes and loadings included, on the training side of each split and never sees the test side.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scdrugmap.embeddings.compute import embed_cells
from scdrugmap.evaluation.experiment import Options
from scdrugmap.evaluation.material import Material
from scdrugmap.models import load_model
from scdrugmap.models.encoder import Encoder
from scdrugmap.progress import Progress

CONSTANT = "constant"


class Vectors(Protocol):
    """Gives the vectors of a training and a test side."""

    device: str
    precision: str
    weights: str

    def sides(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return two (n_cells, dim) float32 for two index arrays into the material's table."""


class NoVectors:
    """For the constant classifier: a column of zeros."""

    device, precision, weights = "cpu", "float32", ""

    def sides(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return zeros."""
        return np.zeros((len(train), 1), dtype=np.float32), np.zeros((len(test), 1), dtype=np.float32)


class Embedded:
    """All cells embedded once by a model with weights."""

    def __init__(self, material: Material, encoder: Encoder, cache: Path | None, progress: Progress = False) -> None:
        self.device, self.precision, self.weights = str(encoder.device), encoder.precision, encoder.weights_hash
        self.Z = np.concatenate(
            [embed_cells(source.adata, encoder, cache=cache, progress=progress) for source in material.sources]
        )

    def sides(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of the embedding."""
        return self.Z[train], self.Z[test]


class Fitted:
    """A baseline, fitted anew on each training side."""

    weights = ""

    def __init__(self, material: Material, encoder: Encoder) -> None:
        self.device, self.precision, self.encoder = str(encoder.device), encoder.precision, encoder
        self.cells = material.joint()

    def sides(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit on the training side and embed both."""
        own = self.cells[train].copy()
        encoder = self.encoder.fit(own)
        return encoder.embed(own), encoder.embed(self.cells[test].copy())


@functools.lru_cache(maxsize=1)
def load_encoder(model: str, device: str, settings: Options = ()) -> Encoder | None:
    """Return the encoder of a model, None for the constant classifier; the last one stays in memory."""
    knobs: dict[str, Any] = dict(settings)
    return None if model == CONSTANT else load_model(model, device=device, **knobs)


def weights_of(encoder: Encoder | None) -> str:
    """Return what names the weights in an experiment: nothing where they are fitted on the training side."""
    return "" if encoder is None or encoder.card.fitted else encoder.weights_hash


def vectors(material: Material, encoder: Encoder | None, cache: Path | None, progress: Progress = False) -> Vectors:
    """Return what gives the vectors of an experiment; raises what the encoder raises for values it cannot take."""
    if encoder is None:
        return NoVectors()
    return Fitted(material, encoder) if encoder.card.fitted else Embedded(material, encoder, cache, progress)
