"""An AnnData in memory as the loader takes a file: the same matrices, none of them copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scdrugmap.data.io.checks import ValidationReport
from scdrugmap.data.io.h5ad_file import COUNT_LAYERS, PART_LAYERS, RawDataset
from scdrugmap.data.io.matrix import HeldMatrix, Matrix, admit_shape


def raw_dataset_of(adata: AnnData, report: ValidationReport) -> RawDataset:
    """Return the cells of `adata`, and its matrices in order of preference."""
    candidates: list[tuple[str, Any, pd.DataFrame]] = [
        (f"layers/{name}", adata.layers[name], adata.var) for name in COUNT_LAYERS if name in adata.layers
    ]
    candidates.append(("X", adata.X, adata.var))
    if adata.raw is not None:
        candidates.append(("raw/X", adata.raw.X, adata.raw.var))
    candidates += [(f"layers/{name}", adata.layers[name], adata.var) for name in PART_LAYERS if name in adata.layers]
    matrices = [_held(where, values, var, report) for where, values, var in candidates if values is not None]
    if not matrices:
        report.stop("holds no matrix in X, raw or a layer called 'counts'.", "Put the raw counts in X.")
    obsm = {key: value for key, value in adata.obsm.items() if isinstance(value, np.ndarray) and value.ndim == 2}
    marks = adata.uns.get("scdrugmap", {})
    return RawDataset(adata.obs.copy(), matrices, obsm, simulated=bool(marks.get("simulated", False)))


def _held(where: str, values: Any, var: pd.DataFrame, report: ValidationReport) -> Matrix:
    if not (isinstance(values, np.ndarray) or sp.issparse(values)):
        remedy = "Pass its path instead, or bring it into memory: adata = adata.to_memory()."
        report.stop(f"{where} is a {type(values).__name__}, not an array in memory.", remedy)
    if values.dtype.kind not in "biuf":
        remedy = "Convert it: adata.X = adata.X.astype('float32')."
        report.stop(f"{where} holds {values.dtype} values, not numbers.", remedy)
    admit_shape(report, values.shape, where)
    return HeldMatrix(where, var, sp.csr_matrix(values))
