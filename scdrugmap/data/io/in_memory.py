"""An AnnData that a caller already holds, as the door sees it: the same matrices as in a file, none of them copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scdrugmap.data.io.checks import Journal
from scdrugmap.data.io.h5ad_file import COUNT_LAYERS, PART_LAYERS, Table
from scdrugmap.data.io.matrix import HeldMatrix, Matrix, admit_shape


def table_of(adata: AnnData, journal: Journal) -> Table:
    """Return the cells of `adata`, and its matrices in order of preference."""
    found: list[tuple[str, Any, pd.DataFrame]] = [
        (f"layers/{name}", adata.layers[name], adata.var) for name in COUNT_LAYERS if name in adata.layers
    ]
    found.append(("X", adata.X, adata.var))
    if adata.raw is not None:
        found.append(("raw/X", adata.raw.X, adata.raw.var))
    found += [(f"layers/{name}", adata.layers[name], adata.var) for name in PART_LAYERS if name in adata.layers]
    matrices = [_held(where, values, var, journal) for where, values, var in found if values is not None]
    if not matrices:
        journal.stop("holds no matrix in X, raw or a layer called 'counts'.", "Put the raw counts in X.")
    obsm = {key: value for key, value in adata.obsm.items() if isinstance(value, np.ndarray) and value.ndim == 2}
    marks = adata.uns.get("scdrugmap", {})
    return Table(adata.obs.copy(), matrices, obsm, simulated=bool(marks.get("simulated", False)))


def _held(where: str, values: Any, var: pd.DataFrame, journal: Journal) -> Matrix:
    if not (isinstance(values, np.ndarray) or sp.issparse(values)):
        remedy = "Pass its path instead, or bring it into memory: adata = adata.to_memory()."
        journal.stop(f"{where} is a {type(values).__name__}, not an array in memory.", remedy)
    if values.dtype.kind not in "biuf":
        remedy = "Convert it: adata.X = adata.X.astype('float32')."
        journal.stop(f"{where} holds {values.dtype} values, not numbers.", remedy)
    admit_shape(journal, values.shape, where)
    return HeldMatrix(where, var, sp.csr_matrix(values))
