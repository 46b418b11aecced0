"""How far a cell lies from everything that a reference has seen.

The distance of a cell is its mean Euclidean distance to the nearest stored reference cells, in embedding dimensions
that are scaled to unit variance over the reference. `novelty` is the share of reference cells that were nearer than
this when *their own sample was held out*: 0.5 is as far as a typical cell of a new sample of the reference's own
studies, 1.0 is farther than all of them. Every study weighs the same. A cell above `NOVELTY_THRESHOLD` is flagged
`novel`: nothing was measured out there, so its P(resistant) is an extrapolation. Flagged cells are shown and never
dropped.

The idea is the k-nearest-neighbour score of Sun et al. 2022 (arXiv:2204.06507).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from scdrugmap.errors import InvalidInput
from scdrugmap.prediction.reference.sampling import share_equally

NOVELTY_THRESHOLD = 0.95  # novelty above it is flagged: one held-out reference cell in twenty is
_POINTS = 800  # reference cells that are stored
_NEIGHBOURS = 10
_QUERIES = 5000  # reference cells whose held-out distance is measured; cells compared at a time
_GRID = 201  # quantiles that are stored


@dataclass(frozen=True)
class Novelty:
    """Stored reference cells and the held-out distances that give a new distance its meaning."""

    centre: NDArray[np.float32]  # (D,)
    scale: NDArray[np.float32]  # (D,) standard deviation
    points: NDArray[np.float16]  # (P, D) scaled reference cells
    quantiles: NDArray[np.float32]  # (Q,) of the held-out distances, ascending, at evenly spaced levels
    neighbours: int = _NEIGHBOURS
    threshold: float = NOVELTY_THRESHOLD

    def distance(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distance, (n_cells,) float32, of `embedding`, (n_cells, D), to the reference."""
        if embedding.ndim != 2 or embedding.shape[1] != len(self.centre):
            message = (
                f"The embedding is {embedding.shape}, but the reference was fitted on {len(self.centre)} dimensions."
            )
            raise InvalidInput(message, "Use the model that the reference names.")
        blocks = (embedding[start : start + _QUERIES] for start in range(0, len(embedding), _QUERIES))
        near = [_distance((block - self.centre) / self.scale, self.points, self.neighbours) for block in blocks]
        return np.concatenate(near) if near else np.empty(0, dtype=np.float32)

    def score(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return novelty in [0, 1], (n_cells,) float32."""
        levels = np.linspace(0.0, 1.0, len(self.quantiles))
        return np.interp(self.distance(embedding), self.quantiles, levels).astype(np.float32)

    def flag(self, novelty: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell which cells of `novelty`, (n_cells,), lie outside what the reference has seen."""
        return novelty > self.threshold

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays that `from_state` needs."""
        return {"centre": self.centre, "scale": self.scale, "points": self.points, "quantiles": self.quantiles}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], neighbours: int, threshold: float) -> Novelty:
        """Rebuild from `state()`; raises `InvalidInput` where shapes disagree or values are not usable."""
        centre, scale, points, quantiles = (state[name] for name in ("centre", "scale", "points", "quantiles"))
        fits = points.ndim == 2 and centre.shape == scale.shape == points.shape[1:] and len(points) > 0
        if not fits or not np.all(scale > 0) or quantiles.size < 2 or not np.all(np.diff(quantiles) >= 0):
            message = f"The novelty part is not usable: points {points.shape}, centre {centre.shape}."
            raise InvalidInput(message, "Fit the reference again: scdrugmap reference fit --model MODEL")
        return cls(centre, scale, points, quantiles, neighbours, threshold)


def fit_novelty(
    embedding: NDArray[np.float32],
    samples: ArrayLike,
    studies: ArrayLike,
    *,
    seed: int,
    points: int = _POINTS,
    neighbours: int = _NEIGHBOURS,
) -> Novelty:
    """Choose the stored cells and measure held-out distances.

    Args:
        embedding: (n_cells, D) float32 of the reference cells, two or more.
        samples: (n_cells,) the unit that is held out; with a single one each cell is held out by itself.
        studies: (n_cells,) study of each cell; studies share the stored places and the weight equally.
        seed: of the choice of stored cells.
        points: how many cells are stored.
        neighbours: how many of the nearest stored cells make the distance.

    """
    if len(embedding) < 2:
        message = f"A reference needs two cells or more to know what is near, and has {len(embedding)}."
        raise InvalidInput(message, "Add labelled cells.")
    rng = np.random.default_rng(seed)
    studies, units = np.asarray(studies).astype(str), np.asarray(samples).astype(str)
    units = np.char.add(np.char.add(studies, "\n"), units)  # a sample's name is only unique within its study
    if len(np.unique(units)) == 1:
        units = np.arange(len(embedding)).astype(str)
    centre = embedding.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = embedding.std(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.where(deviation > 1e-8, deviation, np.float32(1.0))
    scaled = ((embedding - centre) / scale).astype(np.float32)
    stored = share_equally(studies, points, rng)
    queries = share_equally(studies, _QUERIES, rng)
    held_out = _held_out_distances(scaled, units, stored, queries, neighbours)
    quantiles = _weighted_quantiles(held_out, _study_weights(studies[queries]))
    return Novelty(centre, scale, scaled[stored].astype(np.float16), quantiles, neighbours)


def _held_out_distances(
    scaled: NDArray[np.float32],
    units: NDArray[np.str_],
    stored: NDArray[np.intp],
    queries: NDArray[np.intp],
    neighbours: int,
) -> NDArray[np.float32]:
    distances = np.empty(len(queries), dtype=np.float32)
    points = scaled[stored].astype(np.float16)  # as stored, so that fitting and scoring measure the same thing
    for unit in np.unique(units[queries]):
        of_unit = units[queries] == unit
        others = points[units[stored] != unit]
        distances[of_unit] = _distance(scaled[queries[of_unit]], others if len(others) else points, neighbours)
    return distances


def _distance(scaled: NDArray[np.float32], points: NDArray[np.float16], neighbours: int) -> NDArray[np.float32]:
    index = NearestNeighbors(n_neighbors=min(neighbours, len(points)), algorithm="brute").fit(points.astype(np.float32))
    return index.kneighbors(scaled)[0].mean(axis=1).astype(np.float32)


def _study_weights(studies: NDArray[np.str_]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(studies, return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts[inverse])


def _weighted_quantiles(values: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    positions = (cumulative - cumulative[0]) / max(cumulative[-1] - cumulative[0], np.finfo(float).tiny)
    return np.interp(np.linspace(0.0, 1.0, _GRID), positions, values[order]).astype(np.float32)
