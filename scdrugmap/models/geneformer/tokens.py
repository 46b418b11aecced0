"""Geneformer's tokens: the cell's genes by falling count over the gene's median in the pretraining corpus.

Rules from `geneformer.tokenizer` (ctheodoris/Geneformer, read at e534f69 of a copy). Columns with the same current
Ensembl id are summed. The cell's total and the factor 10,000 scale all genes alike, so they are left out: no
`n_counts` is needed. Upstream sorts ties in an order that depends on the processor; here the smaller token comes
first, whatever the order of the columns.

A dictionary with `<cls>` and `<eos>` (V2) puts them around the genes. A cell that expresses no known gene is these two
alone, or one `<pad>` (V1): the mean over its genes is a vector of zeros, and mode "cls" gives the model's answer.
Every cell is embedded: `obs["filter_pass"]`, by which upstream drops rows, is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Batch, Tokens, by_gene, ragged
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer

PAD, MASK, CLS, EOS = SPECIALS = ("<pad>", "<mask>", "<cls>", "<eos>")
NO_ID = ("", "NAN", "NONE", "<NA>")  # how an empty cell of var["ensembl_id"] reads as text


class Tokenizer(BaseTokenizer):
    """Vocabulary: `ensembl` and `symbols` (name -> token), `medians` (one a token), `specials` and `positions`.

    Settings: `max_length` (None: all positions of the checkpoint) and `emb_mode`.
    """

    identifier = "ensembl"

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        self.medians = np.array(vocabulary["medians"], dtype=np.float64)  # (tokens,)
        specials = vocabulary["specials"]
        self.pad_id = specials[PAD]
        self.framed = CLS in specials
        self.before, self.after = (np.array([specials[x]] if self.framed else [], dtype=np.int32) for x in (CLS, EOS))
        self.is_gene = np.ones(len(self.medians), dtype=bool)  # (tokens,)
        self.is_gene[list(specials.values())] = False
        self.max_length = self._read_max_length(settings["max_length"], vocabulary["positions"])
        if settings["emb_mode"] == "cls" and not self.framed:
            message = "emb_mode='cls' needs a model with <cls>; this is a Geneformer V1, which has none."
            raise InvalidInput(message, "Give emb_mode='cell', or the weights of a V2 model.")

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """All Ensembl ids, old and current, and symbols."""
        return vocabulary["symbols"] | vocabulary["ensembl"]

    def look_up(self, cells: Cells) -> np.ndarray:
        """Token of each column, -1 where the model knows none; (G,) int64.

        A column's Ensembl id decides; without one its name is looked up, as an Ensembl id and as a symbol.
        """
        ids = np.full(len(cells.symbols), "") if cells.ensembl_ids is None else cells.ensembl_ids
        named = zip(ids.tolist(), cells.symbols.tolist(), strict=True)
        return np.array([self._token(ensembl.upper(), symbol) for ensembl, symbol in named], dtype=np.int64)

    def tokenize(self, cells: Cells) -> Tokens:
        """Give the known genes by falling count / median: at most `max_length` tokens, special ones included."""
        counts = by_gene(cells.counts, self.match(cells), len(self.medians))  # (C, tokens) by rising token
        room = self.max_length - len(self.before) - len(self.after)
        sentences = []
        for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
            genes = counts.indices[start:end]
            order = np.argsort(-counts.data[start:end] / self.medians[genes], kind="stable")[:room]
            sentences.append(np.concatenate([self.before, genes[order], self.after]))
            if not len(sentences[-1]):
                sentences[-1] = np.array([self.pad_id], dtype=np.int32)
        offsets = ragged(np.array([len(sentence) for sentence in sentences], dtype=np.int64))
        return Tokens(offsets, np.concatenate([np.empty(0, dtype=np.int32), *sentences]))

    def collate(self, tokens: Tokens, rows: np.ndarray) -> Batch:
        """Pad the cells `rows`: ids (B, L), mask (B, L) where they differ in length, pooled (B, L) True on genes."""
        batch = super().collate(tokens, rows)
        if self.settings["emb_mode"] == "cell":
            batch["pooled"] = self.is_gene[batch["ids"]]
        return batch

    def _token(self, ensembl: str, symbol: str) -> int:
        known = self.vocabulary["ensembl"]
        if ensembl not in NO_ID:
            return known.get(ensembl, -1)
        return known.get(symbol.upper(), self.vocabulary["symbols"].get(symbol, -1))

    def _read_max_length(self, wanted: Any, positions: int) -> int:
        least = len(self.before) + len(self.after) + 1
        if wanted is None:
            return positions
        if isinstance(wanted, int) and least <= wanted <= positions:
            return wanted
        message = f"max_length={wanted!r} does not fit a model of {positions} positions."
        raise InvalidInput(message, f"Give a whole number from {least} to {positions}, or leave it out.")
