"""A two-dimensional map and clusters of an embedding, for any number of cells.

UMAP and Leiden as in scanpy (exact neighbours on the embedding, igraph's Leiden), seeded, so that the same cells give
the same map. Two departures, for sizes at which they fail: under `MIN_CELLS` cells the first two principal components
stand in for UMAP and there is one cluster; over `MAP_CELLS` cells a seeded random subset is laid out and clustered, and
every other cell takes the mean place and the commonest cluster of its nearest laid-out cells.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scanpy as sc
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

MIN_CELLS = 15
MAP_CELLS = 20_000
_NEIGHBOURS = 15  # scanpy's default
COMPONENTS = 50  # wider embeddings are reduced to this many principal components first, as scanpy advises for X
RESOLUTION = 1.0
_PLACED_BY = 5  # laid-out cells that place one that is not


@dataclass(frozen=True)
class Projection:
    """Places and clusters of the cells, and how they came about."""

    umap: NDArray[np.float32]  # (n_cells, 2)
    cluster: NDArray[np.str_]  # (n_cells,) "0" is the largest
    method: str
    n_laid_out: int


def project(embedding: NDArray[np.float32], *, seed: int = 0) -> Projection:
    """Lay out and cluster `embedding`, (n_cells, D) float32, one row or more."""
    n_cells = len(embedding)
    if n_cells < MIN_CELLS or not np.ptp(embedding, axis=0).any():
        method = "principal components (too few different cells for UMAP)"
        return Projection(_principal(embedding), np.full(n_cells, "0"), method, n_cells)
    reduced = _reduce(embedding, seed)
    if n_cells <= MAP_CELLS:
        umap, cluster = _lay_out(reduced, seed)
        return Projection(umap, cluster, "UMAP", n_cells)
    chosen = np.sort(np.random.default_rng(seed).choice(n_cells, MAP_CELLS, replace=False))
    umap, cluster = _lay_out(reduced[chosen], seed)
    return Projection(
        *_place(reduced, chosen, umap, cluster), f"UMAP of {MAP_CELLS} cells, the others placed", MAP_CELLS
    )


def _reduce(embedding: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    if embedding.shape[1] <= COMPONENTS or len(embedding) <= COMPONENTS:
        return embedding
    return PCA(COMPONENTS, svd_solver="randomized", random_state=seed).fit_transform(embedding).astype(np.float32)


def _principal(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """First two principal components, (n_cells, 2); what does not exist is 0."""
    centred = embedding - embedding.mean(axis=0)
    left, strength, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(embedding), 2), dtype=np.float32)
    width = min(2, len(strength))
    places[:, :width] = (left * strength)[:, :width]
    return places


def _lay_out(embedding: NDArray[np.float32], seed: int) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    cells = AnnData(obsm={"X_embedding": embedding}, shape=(len(embedding), 0))
    with warnings.catch_warnings():
        # UMAP says that a seed means one thread, and that a map of disconnected parts is spread out: both are meant.
        warnings.filterwarnings("ignore", message="n_jobs value .* overridden", category=UserWarning)
        warnings.filterwarnings(
            "ignore", message=".*(not fully connected|Spectral initialisation failed)", category=UserWarning
        )
        # Over 8,192 cells scanpy's own choice is pynndescent: approximate, and scanpy cannot read what its 0.7 returns.
        sc.pp.neighbors(
            cells,
            n_neighbors=min(_NEIGHBOURS, len(embedding) - 1),
            use_rep="X_embedding",
            transformer="sklearn",
            random_state=seed,
        )
        sc.tl.umap(cells, random_state=seed)
        sc.tl.leiden(cells, resolution=RESOLUTION, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    return cells.obsm["X_umap"].astype(np.float32), cells.obs["leiden"].to_numpy().astype(str)


def _place(
    reduced: NDArray[np.float32], chosen: NDArray[np.intp], umap: NDArray[np.float32], cluster: NDArray[np.str_]
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    places = np.empty((len(reduced), 2), dtype=np.float32)
    names, codes = np.unique(cluster, return_inverse=True)
    clusters = np.empty(len(reduced), dtype=names.dtype)
    places[chosen], clusters[chosen] = umap, cluster
    others = np.setdiff1d(np.arange(len(reduced)), chosen)
    near = (
        NearestNeighbors(n_neighbors=_PLACED_BY).fit(reduced[chosen]).kneighbors(reduced[others])[1]
    )  # (O, _PLACED_BY)
    places[others] = umap[near].mean(axis=1)
    votes = (codes[near][:, :, None] == np.arange(len(names))).sum(axis=1)  # (O, clusters)
    clusters[others] = names[votes.argmax(axis=1)]
    return places, clusters
