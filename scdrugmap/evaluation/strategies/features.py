"""From cells to the vectors that a head sees, the same question to a model and to a baseline.

A model's embedding of a cell depends on that cell alone, so all are embedded once, through the cache. Where the cells
of a model see each other, the two sides of a split are embedded apart. A baseline is fitted, its genes and loadings
included, on the training side of each split and never sees the test side.
"""

from __future__ import annotations

import functools
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scdrugmap.embeddings.compute import embed_cells
from scdrugmap.errors import WeightsInvalid
from scdrugmap.evaluation.cells.labelled_cells import LabelledData
from scdrugmap.evaluation.experiment import CONSTANT, Experiment, Options
from scdrugmap.evaluation.strategies.head import FeatureMatrix
from scdrugmap.models import load_model
from scdrugmap.models.checkpoints.baseline import refit
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.progress import Progress

if TYPE_CHECKING:
    from anndata import AnnData

IN_MEMORY = 2**30  # bytes of an embedding; a larger one is a memory map, in a file of the cache without a name


class FeatureView(Protocol):
    """The cells as the training side of one fold shows them."""

    def of(self, rows: np.ndarray) -> FeatureMatrix:
        """Return (n_rows, dim) float32 for positions in the material's table."""


class Features(Protocol):
    """Gives, for each training side, the vectors of any cells."""

    device: str
    precision: str
    weights: str

    def learn(self, train: np.ndarray) -> FeatureView:
        """Fit on a training side what is to be fitted."""


class NoFeatures:
    """For the constant classifier: a column of zeros."""

    device, precision, weights = "cpu", "float32", ""

    def learn(self, train: np.ndarray) -> NoFeatures:
        """Learn nothing."""
        return self

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return zeros."""
        return np.zeros((len(rows), 1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a matrix, read when they are asked for: nothing is copied before, however many they are."""

    Z: np.ndarray  # (n_cells, dim) float32, or a memory map
    rows: np.ndarray  # (n_rows,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and width."""
        return (len(self.rows), self.Z.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self.Z[self.rows[key]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


class FrozenFeatures:
    """All cells embedded once by a model with weights."""

    def __init__(
        self, material: LabelledData, encoder: Encoder, cache: Path | None, progress: Progress = False
    ) -> None:
        self.device, self.precision, self.weights = str(encoder.device), encoder.precision, encoder.weights_hash
        self.Z = _embeddings(material, encoder, cache, progress)

    def learn(self, train: np.ndarray) -> FrozenFeatures:
        """Learn nothing: the encoder is frozen."""
        return self

    def of(self, rows: np.ndarray) -> Rows:
        """Return rows of the embedding."""
        return Rows(self.Z, rows)


# The last embedding of cells that are in use, so that the next head or split finds it; gone when the cells are.
_last: weakref.WeakKeyDictionary[LabelledData, tuple[Encoder, Path | None, np.ndarray]] = weakref.WeakKeyDictionary()


def _embeddings(material: LabelledData, encoder: Encoder, cache: Path | None, progress: Progress) -> np.ndarray:
    """Return all cells' embeddings, (n_cells, dim) float32, read-only."""
    held = _last.get(material)
    if held and held[0] is encoder and held[1] == cache:
        return held[2]
    Z = empty((len(material.table), encoder.dim), cache)
    start = 0
    for source in material.sources:
        end = start + source.adata.n_obs
        embed_cells(source.adata, encoder, cache=cache, progress=progress, out=Z[start:end])
        start = end
    Z.flags.writeable = False
    _last[material] = (encoder, cache, Z)
    return Z


def empty(shape: tuple[int, int], folder: Path | None) -> np.ndarray:
    """Return a float32 matrix to be filled: above `IN_MEMORY`, and with a folder, a memory map of a nameless file.

    The file is gone when the matrix is, also where the process is killed.
    """
    if folder is None or 4 * shape[0] * shape[1] <= IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


class ContextFeatures:
    """Cells that see each other: each side of a split is embedded by itself, each data set of a side apart.

    Otherwise a training cell's embedding would hold something of the tested ones. Each cell is embedded once a fold.
    """

    def __init__(
        self, material: LabelledData, encoder: Encoder, cache: Path | None, progress: Progress = False
    ) -> None:
        self.device, self.precision, self.weights = str(encoder.device), encoder.precision, encoder.weights_hash
        self.material, self.encoder, self.cache, self.progress = material, encoder, cache, progress

    def learn(self, train: np.ndarray) -> ContextFeatures:
        """Learn nothing: the encoder is frozen."""
        return self

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Embed rows of one side among themselves."""
        Z = np.empty((len(rows), self.encoder.dim), dtype=np.float32)
        start = 0
        for source in self.material.sources:
            places = np.flatnonzero((rows >= start) & (rows < start + source.adata.n_obs))
            if len(places):
                cells = source.adata[rows[places] - start].copy()
                Z[places] = embed_cells(cells, self.encoder, cache=self.cache, progress=self.progress)
            start += source.adata.n_obs
        return Z


class BaselineFeatures:
    """A baseline, fitted anew on each training side."""

    weights = ""

    def __init__(self, material: LabelledData, encoder: Encoder) -> None:
        self.device, self.precision, self.encoder = str(encoder.device), encoder.precision, encoder
        self.cells = material.joint

    def learn(self, train: np.ndarray) -> BaselineView:
        """Fit genes and loadings on the training side."""
        return BaselineView(self.cells, refit(self.encoder, self.cells[train].copy()))


@dataclass(frozen=True)
class BaselineView:
    """What a baseline fitted on one training side makes of the cells."""

    cells: AnnData
    encoder: Encoder

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Embed rows with what was fitted."""
        return self.encoder.embed(self.cells[rows].copy())


@functools.lru_cache(maxsize=1)
def load_encoder(model: str, device: str, settings: Options = (), weights: str | None = None) -> Encoder | None:
    """Return the encoder of a model, None for the constant classifier; the last one stays in memory.

    `weights` is a folder or a Hub id, as `load_model` takes them; None is the card's source.
    """
    knobs: dict[str, Any] = dict(settings)
    return None if model == CONSTANT else load_model(model, weights, device=device, **knobs)


def encoder_of(experiment: Experiment, device: str, weights: str | None = None) -> Encoder | None:
    """Return the encoder of an experiment; raises `WeightsInvalid` where its weights are not the planned ones."""
    encoder = load_encoder(experiment.model, device, experiment.settings, weights)
    loaded, planned = weights_of(encoder), experiment.weights
    if planned and loaded != planned:
        message = f"The weights of '{experiment.model}' here ({loaded[:19]}) are not the planned ones ({planned[:19]})."
        raise WeightsInvalid(message, "Give every worker the same files at the same path, or plan the benchmark again.")
    return encoder


def weights_of(encoder: Encoder | None) -> str:
    """Return what names the weights in an experiment: nothing where they are fitted on the training side."""
    return "" if encoder is None or encoder.card.fitted else encoder.weights_hash


def make_features(
    material: LabelledData, encoder: Encoder | None, cache: Path | None, progress: Progress = False
) -> Features:
    """Return what gives the vectors of an experiment; raises what the encoder raises for values it cannot take."""
    if encoder is None:
        return NoFeatures()
    if encoder.card.fitted:
        return BaselineFeatures(material, encoder)
    return (FrozenFeatures if encoder.independent else ContextFeatures)(material, encoder, cache, progress)
