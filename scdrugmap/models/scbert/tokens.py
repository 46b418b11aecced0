"""scBERT's tokens: the expression level of every gene of the model, in the model's order, and one more token 0.

Rules from the published preprocessing (TencentAILabHealthcare/scBERT at 262fd4b): counts of the model's genes are
brought to 10,000 a cell, x = log2(1 + count) is cut at the highest level and rounded towards zero, so that a gene with
0 < x < 1 is token 0, as an unexpressed one. The highest token is the mask of pretraining and is never given.

A cell that expresses no known gene is 0 everywhere: its embedding is the model's answer to an empty profile. Upstream
drops cells with fewer than 200 detected genes; here they are embedded.

`compat="upstream"`: the cells of a batch share one maximum of the keys, as they do upstream, so that an embedding
depends on its batch mates. A batch is then `upstream_batch_size` cells in their order; where that is not set, the
`batch_size` of the call, and without it all cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Batch, Tokens, by_gene
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer

TARGET_SUM = 10_000.0


class PerformerTokenizer(BaseTokenizer):
    """What scBERT and CellLM share: vocabulary `genes` (in order) and `n_tokens`; settings `compat`
    and `upstream_batch_size`."""

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        self.n_genes = len(vocabulary["genes"])
        if settings["compat"] not in ("", "upstream"):
            message = f"compat='{settings['compat']}' is not known."
            raise InvalidInput(message, "Leave it out, or give compat='upstream'.")
        batch = settings["upstream_batch_size"]
        if batch is not None and (not isinstance(batch, int) or batch < 1):
            message = f"upstream_batch_size={batch!r} is not a number of cells."
            raise InvalidInput(message, "Give a whole number of at least 1, or leave it out.")

    @property
    def independent(self) -> bool:
        """Whether each cell has a key maximum of its own."""
        return self.settings["compat"] != "upstream"

    @property
    def context(self) -> str:
        """Who sees whom."""
        batch = self.settings["upstream_batch_size"] or "the call's batch size"
        return super().context if self.independent else f"rows in order: one key maximum in batches of {batch}"

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """Symbol -> place in the model's order."""
        return {name: row for row, name in enumerate(vocabulary["genes"])}

    def plan(self, tokens: Tokens, batch_size: int | None, budget: int) -> list[np.ndarray]:
        """Cells of each batch: of like length, or the rows that share a maximum upstream."""
        if self.independent:
            return super().plan(tokens, batch_size, budget)
        step = self.settings["upstream_batch_size"] or batch_size or max(1, len(tokens))
        return [np.arange(start, min(start + step, len(tokens))) for start in range(0, len(tokens), step)]

    def counts(self, cells: Cells) -> sparse.csr_matrix:
        """Counts of the model's genes in the model's order, (C, n_genes) float64 with sorted indices."""
        return by_gene(cells.counts, self.match(cells), self.n_genes)

    def levels(self, values: np.ndarray, highest: int) -> np.ndarray:
        """Values cut at the `highest` level and rounded towards zero."""
        return np.minimum(values, highest).astype(np.min_scalar_type(self.vocabulary["n_tokens"]))


class Tokenizer(PerformerTokenizer):
    """Setting `pooling` is the network's."""

    def tokenize(self, cells: Cells) -> Tokens:
        """Give n_genes + 1 levels a cell, unsigned bytes: they are many."""
        x = log_normalised(self.counts(cells))
        levels = self.levels(x.data, self.vocabulary["n_tokens"] - 2)
        ids = sparse.csr_matrix((levels, x.indices, x.indptr), shape=(len(cells), self.n_genes + 1)).toarray()
        return Tokens(np.arange(len(cells) + 1, dtype=np.int64) * ids.shape[1], ids.ravel())

    def collate(self, tokens: Tokens, rows: np.ndarray) -> Batch:
        """Give ids (B, L): all cells are equally long."""
        return {"ids": tokens.ids.reshape(len(tokens), -1)[rows].astype(np.int32)}


def log_normalised(counts: sparse.csr_matrix, base: float = 2.0) -> sparse.csr_matrix:
    """log(1 + count) to `base`, of counts brought to `TARGET_SUM` a cell; (C, G) float32, rounded as scanpy rounds."""
    totals = counts.sum(axis=1).A1.astype(np.float32)
    share = np.repeat(totals / np.float32(TARGET_SUM), np.diff(counts.indptr))
    x = np.log1p(counts.data.astype(np.float32) / share)
    x /= np.log(base)
    return sparse.csr_matrix((x, counts.indices, counts.indptr), shape=counts.shape)
