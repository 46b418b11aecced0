"""scGPT's tokens: the cell's expressed genes and the quantile bin of each value.

Rules and constants from `scgpt.tasks.embed_data`, `scgpt.preprocess` and `scgpt.data_collator` (bowang-lab/scGPT at
cebd6fa), with two choices made deterministic, because upstream draws them at random:

* a value that equals several bin edges gets the middle of the bins it may have, (lo + hi) // 2;
* of a cell that is longer than `max_length`, the genes are kept whose hash, seeded with the cell's own content, is
  smallest: a uniform sample that depends on the cell alone, not on its row, its batch or the order of the columns.
  `compat="upstream"` keeps the first `max_length` tokens in column order instead (upstream's collator, sampling off).

A cell that expresses no known gene is `<cls>` alone: its embedding is the model's answer to an empty sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer
from scdrugmap.models.core.tokenizer import Tokens, ragged

N_BINS = 51  # fixed in scgpt.tasks.embed_data, whatever args.json says
SPECIALS = ("<pad>", "<cls>", "<eoc>")
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # splitmix64


class Tokenizer(BaseTokenizer):
    """Vocabulary: `tokens` (name -> id) and `pad_value`; settings: `max_length` and `compat`."""

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        self.pad_id = vocabulary["tokens"]["<pad>"]
        self.cls_id = vocabulary["tokens"]["<cls>"]
        self.pad_value = float(vocabulary["pad_value"])  # the value of <cls> as well
        self.max_length = settings["max_length"]
        if not isinstance(self.max_length, int) or self.max_length < 2:
            message = f"max_length={self.max_length!r} leaves no room for a gene beside <cls>."
            raise InvalidInput(message, "Give a whole number of at least 2.")
        if settings["compat"] not in ("", "upstream"):
            message = f"compat='{settings['compat']}' is not known."
            raise InvalidInput(message, "Leave it out, or give compat='upstream'.")

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """All tokens but the special ones."""
        return {name: row for name, row in vocabulary["tokens"].items() if name not in SPECIALS}

    def tokenize(self, cells: Cells) -> Tokens:
        """Give `<cls>` and the expressed known genes in column order, with bins 1..50 (`pad_value` at `<cls>`)."""
        rows = self.match(cells)
        known = np.flatnonzero(rows >= 0)
        counts = cells.counts[:, known]
        counts.sort_indices()
        genes = rows[known].astype(np.int32)
        parts = [
            self._sentence(genes[counts.indices[a:b]], counts.data[a:b])
            for a, b in zip(counts.indptr[:-1], counts.indptr[1:], strict=True)
        ]
        lengths = np.array([len(ids) + 1 for ids, _ in parts], dtype=np.int64)
        offsets = ragged(lengths)
        ids = np.full(offsets[-1], self.cls_id, dtype=np.int32)
        values = np.full(offsets[-1], self.pad_value, dtype=np.float32)
        inside = np.ones(offsets[-1], dtype=bool)
        inside[offsets[:-1]] = False  # <cls> stands first in each cell
        if parts:
            ids[inside] = np.concatenate([ids for ids, _ in parts])
            values[inside] = np.concatenate([bins for _, bins in parts])
        return Tokens(offsets, ids, values)

    def _sentence(self, genes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Genes and bins of one cell, both (n,), at most `max_length` - 1 of them."""
        bins = bin_values(values)
        room = self.max_length - 1
        if len(genes) <= room:
            return genes, bins
        if self.settings["compat"] == "upstream":
            return genes[:room], bins[:room]
        kept = np.sort(np.argsort(content_hash(genes, bins), kind="stable")[:room])
        return genes[kept], bins[kept]


def bin_values(values: np.ndarray) -> np.ndarray:
    """Quantile bin of each value among the values of its cell, (n,) -> (n,) float32 in 1..50.

    The bin of a value is the number of edges at or below it; among several equal edges the middle is taken.
    """
    if not len(values):
        return np.empty(0, dtype=np.float32)
    low, high = bin_range(values)
    return ((low + high) // 2).astype(np.float32)


def bin_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest bin that upstream may draw for each value, both (n,) int64."""
    edges = np.quantile(values, np.linspace(0, 1, N_BINS - 1))
    high = np.searchsorted(edges, values, side="right")  # edges at or below
    low = np.searchsorted(edges, values, side="left") + 1  # edges strictly below, and one
    return np.minimum(low, high), high


def content_hash(genes: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Give each gene of a cell a number that only the cell's genes and bins decide, (n,) uint64, in any gene order."""
    entries = _splitmix(genes.astype(np.uint64) * np.uint64(N_BINS) + bins.astype(np.uint64))
    seed = entries.sum(dtype=np.uint64)
    return _splitmix(genes.astype(np.uint64) ^ seed)


def _splitmix(x: np.ndarray) -> np.ndarray:
    """Mix 64-bit integers (Steele, Lea and Flood 2014, SplitMix64's finaliser)."""
    with np.errstate(over="ignore"):
        x = x + _MIX[0]
        x = (x ^ (x >> np.uint64(30))) * _MIX[1]
        x = (x ^ (x >> np.uint64(27))) * _MIX[2]
    return x ^ (x >> np.uint64(31))
