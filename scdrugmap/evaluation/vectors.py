"""From cells to the vectors that a head sees, the same question to a model and to a baseline.

A model's embedding of a cell depends on that cell alone, so all are embedded once, through the cache. A baseline is
fitted, its genes and loadings included, on the training side of each split and never sees the test side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scdrugmap.embeddings.compute import embed_cells
from scdrugmap.evaluation.experiment import Options
from scdrugmap.evaluation.material import Material
from scdrugmap.models import load_model
from scdrugmap.models.encoder import Encoder
from scdrugmap.progress import Progress

if TYPE_CHECKING:
    from anndata import AnnData

CONSTANT = "constant"


class View(Protocol):
    """The cells as the training side of one fold shows them."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return (n_rows, dim) float32 for positions in the material's table."""


class Vectors(Protocol):
    """Gives, for each training side, the vectors of any cells."""

    device: str
    precision: str
    weights: str

    def learn(self, train: np.ndarray) -> View:
        """Fit on a training side what is to be fitted."""


class NoVectors:
    """For the constant classifier: a column of zeros."""

    device, precision, weights = "cpu", "float32", ""

    def learn(self, train: np.ndarray) -> NoVectors:
        """Learn nothing."""
        return self

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return zeros."""
        return np.zeros((len(rows), 1), dtype=np.float32)


class Embedded:
    """All cells embedded once by a model with weights."""

    def __init__(self, material: Material, encoder: Encoder, cache: Path | None, progress: Progress = False) -> None:
        self.device, self.precision, self.weights = str(encoder.device), encoder.precision, encoder.weights_hash
        self.Z = np.concatenate(
            [embed_cells(source.adata, encoder, cache=cache, progress=progress) for source in material.sources]
        )

    def learn(self, train: np.ndarray) -> Embedded:
        """Learn nothing: the encoder is frozen."""
        return self

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of the embedding."""
        return self.Z[rows]


class Fitted:
    """A baseline, fitted anew on each training side."""

    weights = ""

    def __init__(self, material: Material, encoder: Encoder) -> None:
        self.device, self.precision, self.encoder = str(encoder.device), encoder.precision, encoder
        self.cells = material.joint()

    def learn(self, train: np.ndarray) -> FittedView:
        """Fit genes and loadings on the training side."""
        return FittedView(self.cells, self.encoder.fit(self.cells[train].copy()))


@dataclass(frozen=True)
class FittedView:
    """What a baseline fitted on one training side makes of the cells."""

    cells: AnnData
    encoder: Encoder

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Embed rows with what was fitted."""
        return self.encoder.embed(self.cells[rows].copy())


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
