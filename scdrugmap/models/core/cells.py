"""What a tokenizer may look at: counts and gene names of some cells, checked, without the rest of an AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from scdrugmap.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


ABOUT = ("drug", "cancer_type", "tissue")  # what a text may say of a cell beside its genes, in this order


@dataclass(frozen=True)
class Cells:
    """Expression of C cells over G columns, as every tokenizer receives it."""

    counts: sparse.csr_matrix  # (C, G) float32, linear scale; no stored zeros
    symbols: np.ndarray  # (G,) str, `var_names`
    ensembl_ids: np.ndarray | None  # (G,) str, `var["ensembl_id"]` where there is one
    value_type: str  # "counts", "cpm", "log1p", "log2p1" (both undone by the reader) or "zscore"
    groups: np.ndarray | None  # (C,) str, `obs["batch"]`: who sees whom in a model that attends across cells
    older_names: np.ndarray | None = None  # (G,) str, `var["original_name"]`: the file's own names of the genes
    about: Mapping[str, np.ndarray] = field(default_factory=dict)  # (C,) str each, those of `ABOUT` that obs has

    def __len__(self) -> int:
        return self.counts.shape[0]

    @classmethod
    def from_anndata(cls, adata: AnnData) -> Cells:
        """Read them from `adata` (in memory or backed); raises `InvalidInput` on values that no model can take."""
        if adata.isbacked:
            adata = adata.to_memory()
        symbols = adata.var_names.to_numpy(dtype=str)
        if not adata.var_names.is_unique:
            twice = adata.var_names[adata.var_names.duplicated()][0]
            message = f"'{twice}' names more than one gene of the matrix."
            raise InvalidInput(message, "Read the file with scdrugmap.read_h5ad, which adds such columns up.")
        value_type = str(adata.uns.get("scdrugmap", {}).get("input", {}).get("value_type", "counts"))
        ensembl = adata.var["ensembl_id"].to_numpy(dtype=str) if "ensembl_id" in adata.var else None
        older = adata.var["original_name"].to_numpy(dtype=str) if "original_name" in adata.var else None
        groups = adata.obs["batch"].to_numpy(dtype=str) if "batch" in adata.obs else None
        about = {name: _texts(adata.obs[name]) for name in ABOUT if name in adata.obs}
        counts = _matrix(adata.X, signed=value_type == "zscore")
        return cls(counts, symbols, ensembl, value_type, groups, older, about)


def _texts(column: pd.Series) -> np.ndarray:
    return column.astype(object).where(column.notna(), "").to_numpy(dtype=str)


def _matrix(values: object, *, signed: bool) -> sparse.csr_matrix:
    """CSR float32 without stored zeros; an unsigned or integer matrix becomes float first."""
    if values is None:
        message = "The AnnData has no matrix X."
        raise InvalidInput(message, "Put the counts into adata.X.")
    matrix = sparse.csr_matrix(values, dtype=np.float32)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()  # sorting in place would scramble the caller's matrix, whose index arrays this may share
        matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        message = "The matrix X holds NaN or infinite values."
        raise InvalidInput(message, "Read the file with scdrugmap.read_h5ad, which says where they are.")
    if not signed and matrix.nnz and matrix.data.min() < 0:
        message = f"The matrix X holds negative values (down to {matrix.data.min():.3g}): scaled data, not expression."
        raise InvalidInput(message, "Use raw counts or log-normalised values.")
    if matrix.nnz and not matrix.data.all():
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix
