"""Expression of chosen genes as one dense row a cell: log1p of counts per 10,000, or z-scores as they are.

The 10,000 are counted over all genes that the fit has seen (the first `n_features` of them are the chosen ones), so
that a gene nobody has seen changes nothing. A cell without a count on any of them is a row of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Batch, Tokens
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer

TARGET = 1e4  # counts a cell after scaling, scanpy.pp.normalize_total's usual target


class Tokenizer(BaseTokenizer):
    """Vocabulary: `genes` (names seen by the fit, chosen ones first) and `n_features`."""

    takes_zscores: ClassVar[bool] = True

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        self.n_features = int(vocabulary["n_features"])
        self.seen = frozenset(vocabulary["genes"])

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """Give the chosen genes, by their column."""
        return {name: row for row, name in enumerate(vocabulary["genes"][: vocabulary["n_features"]])}

    def tokenize(self, cells: Cells) -> Tokens:
        """One token for each chosen gene with a value: its column and the value."""
        known = np.flatnonzero([name in self.seen for name in cells.symbols.tolist()])
        rows = self.match(cells)[known]
        chosen = np.flatnonzero(rows >= 0)
        values = normalise(cells.counts[:, known], scale=cells.value_type != "zscore")[:, chosen]
        ids = rows[chosen][values.indices].astype(np.int32)
        return Tokens(values.indptr.astype(np.int64), ids, values.data.astype(np.float32))

    def costs(self, tokens: Tokens) -> np.ndarray:
        """A cell is one row of a matrix."""
        return np.ones(len(tokens), dtype=np.int64)

    def collate(self, tokens: Tokens, rows: np.ndarray) -> Batch:
        """Give dense values (B, n_features)."""
        values = np.zeros((len(rows), self.n_features), dtype=np.float32)
        for row, index in enumerate(rows):
            span = tokens.cell(index)
            values[row, tokens.ids[span]] = tokens.values[span]  # type: ignore[index]
        return {"values": values}


def normalise(counts: sparse.csr_matrix, *, scale: bool) -> sparse.csr_matrix:
    """log1p of counts per 10,000 of each cell's total, (C, G) CSR; the values as they are without `scale`."""
    if not scale:
        return counts
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()  # (C,)
    factors = np.divide(TARGET, totals, out=np.zeros_like(totals), where=totals > 0)
    return sparse.csr_matrix(sparse.diags_array(factors) @ counts).log1p().astype(np.float32)
