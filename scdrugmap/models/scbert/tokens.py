"""scBERT's tokens: the expression level of every gene of the model, in the model's order, and one more token 0.

Rules from the published preprocessing (TencentAILabHealthcare/scBERT at 262fd4b): counts of the model's genes are
brought to 10,000 a cell, x = log2(1 + count) is cut at the highest level and rounded towards zero, so that a gene with
0 < x < 1 is token 0, as an unexpressed one. The highest token is the mask of pretraining and is never given.

A cell that expresses no known gene is 0 everywhere: its embedding is the model's answer to an empty profile. Upstream
drops cells with fewer than 200 detected genes; here they are embedded.

`compat="upstream"`: the cells of a batch share one maximum of the keys, as they do upstream. A batch is then
`batch_size` cells in their order, or all cells of the call, and an embedding depends on its batch mates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from scdrugmap.errors import InvalidInput
from scdrugmap.models.inputs import Cells
from scdrugmap.models.tokens import Batch, Tokens
from scdrugmap.models.tokens import Tokenizer as BaseTokenizer

TARGET_SUM = 10_000.0


class PerformerTokenizer(BaseTokenizer):
    """What scBERT and CellLM share: vocabulary `genes` (in order) and `n_tokens`; setting `compat`."""

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        self.n_genes = len(vocabulary["genes"])
        if settings["compat"] not in ("", "upstream"):
            message = f"compat='{settings['compat']}' is not known."
            raise InvalidInput(message, "Leave it out, or give compat='upstream'.")

    @property
    def independent(self) -> bool:
        """Not with `compat="upstream"`."""
        return self.settings["compat"] != "upstream"

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """Symbol -> place in the model's order."""
        return {name: row for row, name in enumerate(vocabulary["genes"])}

    def plan(self, tokens: Tokens, batch_size: int | None, budget: int) -> list[np.ndarray]:
        """Cells of each batch; with `compat="upstream"` in their own order, by default all at once."""
        if self.independent:
            return super().plan(tokens, batch_size, budget)
        step = batch_size or max(1, len(tokens))
        return [np.arange(start, min(start + step, len(tokens))) for start in range(0, len(tokens), step)]

    def counts(self, cells: Cells) -> sparse.csr_matrix:
        """Counts of the model's genes in the model's order, (C, n_genes) float32 with sorted indices."""
        rows = self.match(cells)
        known = np.flatnonzero(rows >= 0)
        found = cells.counts[:, known]
        columns = rows[known][found.indices]
        ordered = sparse.csr_matrix((found.data, columns, found.indptr), shape=(len(cells), self.n_genes))
        ordered.sort_indices()
        return ordered

    def levels(self, values: np.ndarray, highest: int) -> np.ndarray:
        """Values cut at the `highest` level and rounded towards zero."""
        return np.minimum(values, highest).astype(np.min_scalar_type(self.vocabulary["n_tokens"]))


class Tokenizer(PerformerTokenizer):
    """Setting `pooling` is the network's."""

    def tokenize(self, cells: Cells) -> Tokens:
        """Give n_genes + 1 levels a cell, unsigned bytes: they are many."""
        x = log_normalised(self.counts(cells))
        ids = np.zeros((len(cells), self.n_genes + 1), dtype=np.min_scalar_type(self.vocabulary["n_tokens"]))
        ids[np.repeat(np.arange(len(cells)), np.diff(x.indptr)), x.indices] = self.levels(
            x.data, self.vocabulary["n_tokens"] - 2
        )
        return Tokens(np.arange(len(cells) + 1, dtype=np.int64) * ids.shape[1], ids.ravel())

    def collate(self, tokens: Tokens, rows: np.ndarray) -> Batch:
        """Give ids (B, L): all cells are equally long."""
        return {"ids": tokens.ids.reshape(len(tokens), -1)[rows].astype(np.int32)}


def log_normalised(counts: sparse.csr_matrix, base: float = 2.0) -> sparse.csr_matrix:
    """log(1 + count) to `base`, of counts brought to `TARGET_SUM` a cell; (C, G) float32, rounded as scanpy rounds."""
    totals = (counts @ np.ones(counts.shape[1])).astype(np.float32)  # summed in float64: exact for counts
    share = np.repeat(totals / np.float32(TARGET_SUM), np.diff(counts.indptr))
    x = np.log1p(counts.data / share)
    x /= np.log(base)
    return sparse.csr_matrix((x, counts.indices, counts.indptr), shape=counts.shape)
