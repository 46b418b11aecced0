"""Principal components of the most variable genes of training cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sklearn.decomposition import PCA

from scdrugmap.models.checkpoints.checkpoint import Checkpoint
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.hvg.fit import choose


def fit(cells: Cells, settings: Mapping[str, Any]) -> Checkpoint:
    """Give `n_components` components of the `n_genes` most variable genes, fewer where the cells allow fewer.

    Centred, not scaled. Neither solver draws random numbers, and both find the same components: the genes' covariance
    keeps memory flat in the cells, and the cells themselves are ten times faster where they are fewer than the genes.
    """
    values, vocabulary = choose(cells, settings["n_genes"])
    n_components = min(settings["n_components"], vocabulary["n_features"], max(len(cells) - 1, 1))
    values = values.astype("float64")  # (C, F)
    if len(cells) < vocabulary["n_features"]:
        pca = PCA(n_components, svd_solver="full").fit(values.toarray())
    else:
        pca = PCA(n_components, svd_solver="covariance_eigh").fit(values)
    weight, mean = torch.from_numpy(pca.components_), torch.from_numpy(pca.mean_)  # (K, F), (F,)
    tensors = {"components.weight": weight.float(), "components.bias": -(weight @ mean).float()}
    config = {"n_features": vocabulary["n_features"], "n_components": n_components}
    return Checkpoint(config, vocabulary, tensors)
