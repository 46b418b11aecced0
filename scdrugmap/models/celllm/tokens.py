"""CellLM's tokens: <cls>, then the expression levels of the cell's expressed genes in the model's gene order.

Rules from the featurizer and the encoder of PharMolix/OpenBioMed at ce3ccab: values are cut at the highest level and
rounded towards zero, so that an expressed gene with 0 < x < 1 is token 0; a cell keeps its first `max_length` tokens in
gene order. Upstream ships no step from counts to values: `preprocessing` is scBERT's by default ("log2-cp10k", counts
brought to 10,000 a cell and log2(1 + x)), the same with a natural logarithm ("log1p-cp10k"), or nothing ("none").

Upstream pads every cell to `max_length` with tokens that are seen: a padded key has no value but counts in the
denominator. All of a cell's pads are equal in every layer, so one of them stands for all, with their number as its
weight; where a batch needs more rows, the number is shared out among them. That is exact and saves the longest part.

A cell that expresses no known gene is <cls> before nothing but pads: the model's answer to an empty sentence.
`compat="upstream"` and `upstream_batch_size` are scBERT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Batch, Tokens, pad, ragged
from scdrugmap.models.scbert.tokens import PerformerTokenizer, log_normalised

BASES = {"log2-cp10k": 2.0, "log1p-cp10k": float(np.e), "none": None}


class Tokenizer(PerformerTokenizer):
    """Vocabulary: also `max_length`; settings: also `preprocessing` (`pooling` is the network's)."""

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        self.cls_id, self.pad_id = vocabulary["n_tokens"] - 2, vocabulary["n_tokens"] - 1
        self.cls_gene, self.pad_gene = self.n_genes, self.n_genes + 1
        self.max_length = vocabulary["max_length"]
        if settings["preprocessing"] not in BASES:
            message = f"preprocessing='{settings['preprocessing']}' is not known."
            raise InvalidInput(message, f"Give one of {', '.join(BASES)}.")

    def tokenize(self, cells: Cells) -> Tokens:
        """Give `<cls>` and at most `max_length` - 1 levels a cell, with the rows of the gene table in `extra`."""
        counts, base = self.counts(cells), BASES[self.settings["preprocessing"]]
        x = counts if base is None else log_normalised(counts, base)
        n_expressed = np.diff(x.indptr)  # (C,)
        place = np.arange(x.nnz) - np.repeat(x.indptr[:-1], n_expressed)  # of each gene in its cell
        kept = place < self.max_length - 1
        offsets = ragged(np.minimum(n_expressed, self.max_length - 1) + 1)
        ids = np.full(offsets[-1], self.cls_id, dtype=np.int32)
        genes = np.full(offsets[-1], self.cls_gene, dtype=np.int32)
        inside = np.ones(offsets[-1], dtype=bool)
        inside[offsets[:-1]] = False  # <cls> stands first in each cell
        ids[inside] = self.levels(x.data[kept], self.cls_id - 1)
        genes[inside] = x.indices[kept]
        return Tokens(offsets, ids, extra={"genes": genes})

    def costs(self, tokens: Tokens) -> np.ndarray:
        """Tokens and one pad."""
        return np.minimum(tokens.lengths + 1, self.max_length)

    def collate(self, tokens: Tokens, rows: np.ndarray) -> Batch:
        """Give ids, genes, mask (True on tokens) and weight (positions that a row stands for), all (B, L)."""
        lengths = tokens.lengths[rows][:, None]  # (B, 1)
        width = int(self.costs(tokens)[rows].max())
        more = ((0, 0), (0, width - int(lengths.max())))  # a column of pads, unless the longest cell is cut
        mask = np.arange(width) < lengths
        shared = (self.max_length - lengths) / np.maximum(width - lengths, 1)  # pads that each padded row stands for
        return {
            "ids": np.pad(pad(tokens.ids, tokens, rows, self.pad_id), more, constant_values=self.pad_id),
            "genes": np.pad(
                pad(tokens.extra["genes"], tokens, rows, self.pad_gene), more, constant_values=self.pad_gene
            ),
            "mask": mask,
            "weight": np.where(mask, 1.0, shared).astype(np.float32),
        }
