"""Choose the most variable genes of training cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from scdrugmap.errors import InvalidInput
from scdrugmap.models.checkpoints.checkpoint import Checkpoint
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.hvg.tokens import normalise


def fit(cells: Cells, settings: Mapping[str, Any]) -> Checkpoint:
    """Give the `n_genes` genes with the largest variance after log-normalisation (fewer where fewer vary)."""
    _, vocabulary = choose(cells, settings["n_genes"])
    return Checkpoint({"n_features": vocabulary["n_features"]}, vocabulary, {})


def choose(cells: Cells, n_genes: int) -> tuple[sparse.csr_matrix, dict[str, Any]]:
    """Expression of the chosen genes (C, n_features), and the vocabulary with them first.

    Genes of equal variance are taken by name, so that the order of the columns decides nothing.
    """
    values = normalise(cells.counts, scale=cells.value_type != "zscore")
    _, variance = mean_variance_axis(values, axis=0)
    order = np.lexsort((cells.symbols, -variance))  # (G,)
    n_features = min(n_genes, int((variance > 0).sum()))
    if not n_features:
        message = f"No gene varies among the {len(cells)} cells, so there is nothing to choose from."
        raise InvalidInput(message, "Fit on more cells, with counts.")
    return values[:, order[:n_features]], {"genes": cells.symbols[order].tolist(), "n_features": n_features}
