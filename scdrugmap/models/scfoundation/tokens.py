"""scFoundation's tokens: every expressed gene with its log-normalised value, then two that tell the read depth.

Rules from `model/get_embedding.py` (biomap-research/scFoundation at d09626a; input_type singlecell, pre_normalized F):
the total is over the model's genes only, a value is ln(1 + count / total * 10,000), T is the depth that is wished for
and S the one that is there, log10(total). Nothing is truncated. Arithmetic is float64 up to the token.

Tokens at or below zero are dropped, T and S too, as upstream does (a total of 1, or `t0`). A cell without any count on
the model's genes, on which upstream fails, is T alone, at its value or at 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer
from scdrugmap.models.core.tokenizer import Tokens, ragged

TARGET_SUM = 1e4


class Tokenizer(BaseTokenizer):
    """Vocabulary: `genes`, in the order of the gene table; setting `tgthighres`: "t4", "f5", "a5" as upstream's."""

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        n_genes = len(vocabulary["genes"])
        self.t_row, self.s_row, self.pad_id = n_genes, n_genes + 1, n_genes + 2
        wanted = re.fullmatch(r"([tfa])(\d+(?:\.\d+)?)", str(settings["tgthighres"]))
        if wanted is None:
            message = f"tgthighres='{settings['tgthighres']}' is not known."
            raise InvalidInput(message, "Give t, f or a and a number: t4 (depth 10^4), f5 (five-fold), a1 (ten-fold).")
        self.depth_rule, self.depth = wanted[1], float(wanted[2])

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """Symbols in the order of the gene table."""
        return {name: row for row, name in enumerate(vocabulary["genes"])}

    def tokenize(self, cells: Cells) -> Tokens:
        """Give the expressed genes by rising row of the gene table, then T, then S."""
        rows = self.match(cells)
        known = np.flatnonzero(rows >= 0)
        known = known[np.argsort(rows[known], kind="stable")]
        counts, genes = cells.counts[:, known].astype(np.float64), rows[known].astype(np.int32)
        counts.sort_indices()
        parts = [
            self._sentence(genes[counts.indices[a:b]], counts.data[a:b])
            for a, b in zip(counts.indptr[:-1], counts.indptr[1:], strict=True)
        ]
        offsets = ragged(np.array([len(ids) for ids, _ in parts], dtype=np.int64))
        ids = np.concatenate([np.empty(0, dtype=np.int32), *(ids for ids, _ in parts)])
        values = np.concatenate([np.empty(0, dtype=np.float32), *(values for _, values in parts)])
        return Tokens(offsets, ids, values)

    def _sentence(self, genes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and values of one cell, both (n,)."""
        total = counts.sum()
        depth = np.log10(total) if total > 0 else 0.0
        values = np.log1p(counts / total * TARGET_SUM) if total > 0 else counts
        ids = np.append(genes, [self.t_row, self.s_row]).astype(np.int32)
        values = np.append(values, [self._wished(depth), depth])
        kept = values > 0
        if not kept.any():
            kept[-2] = True  # T alone
        return ids[kept], values[kept].astype(np.float32)

    def _wished(self, depth: float) -> float:
        """Value of T for a cell whose log10 total is `depth`."""
        if self.depth_rule == "t":
            return self.depth
        return depth + (self.depth if self.depth_rule == "a" else np.log10(self.depth))
