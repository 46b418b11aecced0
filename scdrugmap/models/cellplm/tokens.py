"""CellPLM's input: log1p of a cell's counts, and who sees whom.

Rules from `CellPLM.pipeline.cell_embedding` (OmicsML/CellPLM at b59ee76). Counts are not normalised; genes without a
count and genes outside the vocabulary play no part; columns of one gene are added up.

Cells attend to the cells they are embedded with, so an embedding depends on its context. The context is the data set,
or, of more than `context_size` cells, a part of it: cells are put in the order of a hash of their counts and `seed` and
cut into parts of equal size, so that neither the order of the rows nor a batch size changes anything; only the cells of
one part are in memory at a time. `context_size=0` never cuts. `obs["batch"]` is not looked at.

`compat="upstream"` takes upstream's contexts: the cells of each label in `obs["batch"]` where there is one, cut into
runs of `context_size` rows, and its mixture component, which is drawn at random even when nothing is trained: `seed`
seeds torch's generator. `compat="upstream-argmax"` takes its contexts and, as our default does, the likeliest
component.

A cell that expresses no known gene is a sum of no vectors, takes part in its context like any other, as upstream has
it, and gets the model's answer to that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Batch, Tokens, by_gene, ragged
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer

NO_ID = ("", "nan", "None", "none", "NA", "<NA>")  # how an empty cell of var["ensembl_id"] reads as text
COMPAT = ("", "upstream", "upstream-argmax")
STEP = 512  # cells whose genes are gathered at a time


class Tokenizer(BaseTokenizer):
    """Vocabulary: `genes` (Ensembl ids, row by row), `clusters` and `latent`.

    Tokens are genes and log1p of their counts; `cells["context"]` numbers the context of each cell. Settings:
    `context_size`, `seed` and `compat`.
    """

    identifier = "ensembl"

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        for name, least in (("context_size", 0), ("seed", 0)):
            if not isinstance(settings[name], int) or not least <= settings[name] < 2**32:
                message = f"{name}={settings[name]!r} is not a whole number from 0 to 4294967295."
                raise InvalidInput(message, "Give one; context_size=0 never cuts a data set into parts.")
        if settings["compat"] not in COMPAT:
            message = f"compat='{settings['compat']}' is not known."
            raise InvalidInput(message, "Leave it out, or give compat='upstream' or compat='upstream-argmax'.")

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """Ensembl ids and their rows."""
        return {gene: row for row, gene in enumerate(vocabulary["genes"])}

    @property
    def independent(self) -> bool:
        """Never: cells see each other."""
        return False

    @property
    def piecewise(self) -> bool:
        """Whether each of `contexts` is one context: upstream's are told apart by labels and rows."""
        return not self.settings["compat"]

    @property
    def context(self) -> str:
        """Who sees whom."""
        size = self.settings["context_size"]
        if self.settings["compat"]:
            rows = f", in runs of {size} rows" if size else ""
            return f'all cells of a label in obs["batch"], or all cells{rows}'
        return f"all cells, or equal parts of at most {size} by content and seed" if size else "all cells"

    def look_up(self, cells: Cells) -> np.ndarray:
        """Row of each column, -1 where the model knows none; a column without an Ensembl id goes by its name; (G,)."""
        ids = cells.symbols if cells.ensembl_ids is None else cells.ensembl_ids
        named = zip(ids.tolist(), cells.symbols.tolist(), strict=True)
        return np.array([self.genes.get(name if gene in NO_ID else gene, -1) for gene, name in named], dtype=np.int64)

    def tokenize(self, cells: Cells) -> Tokens:
        """Give the known genes of each cell with log1p of their counts, and its context."""
        tokens = self._tokens(cells)
        if not self.settings["compat"]:
            hashes = self._hashes(tokens) if self._cuts(len(tokens)) else np.zeros(len(tokens), dtype=np.uint64)
            contexts = np.empty(len(tokens), dtype=np.int64)
            for context, rows in enumerate(self._by_content(hashes)):
                contexts[rows] = context
            return replace(tokens, cells={"context": contexts})
        contexts = self._by_rows(cells)
        known = {"context": contexts}
        if self.settings["compat"] == "upstream":
            known["uniform"] = self._uniform(contexts)
        return replace(tokens, cells=known)

    def plan(self, tokens: Tokens, batch_size: int | None, budget: int) -> list[np.ndarray]:
        """One batch a context, whatever the batch size and the budget."""
        contexts = tokens.cells["context"]
        order = np.argsort(contexts, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(contexts[order])) + 1) if len(order) else []

    def collate(self, tokens: Tokens, rows: np.ndarray) -> Batch:
        """Put cells behind each other: ids and values (T,), starts (N,), and uniform (N, K) where it was drawn."""
        ids, values = tokens.ids, cast("np.ndarray", tokens.values)
        lengths = tokens.lengths[rows]
        offsets = ragged(lengths)
        if not np.array_equal(rows, np.arange(len(tokens))):
            places = np.arange(offsets[-1]) + np.repeat(tokens.offsets[rows] - offsets[:-1], lengths)
            ids, values = ids[places], values[places]
        batch = {"ids": ids, "values": values, "starts": offsets[:-1].astype(np.int32)}
        if "uniform" in tokens.cells:
            batch["uniform"] = tokens.cells["uniform"][rows]
        return batch

    def contexts(self, parts: Iterable[Cells], n_cells: int) -> list[np.ndarray]:
        """Rows of each context, ascending: the cells are read once for their hashes, of which alone all are kept.

        Upstream's contexts are one part: they are drawn for one after the other.
        """
        if self.settings["compat"] or not self._cuts(n_cells):
            return [np.arange(n_cells)]
        hashes = [self._hashes(self._tokens(cells)) for cells in parts]
        return self._by_content(np.concatenate(hashes))

    def _cuts(self, n_cells: int) -> bool:
        size = self.settings["context_size"]
        return bool(size) and n_cells > size

    def _tokens(self, cells: Cells) -> Tokens:
        """Known genes of each cell by rising row and log1p of their counts; a step at a time, for the memory."""
        genes, steps = self.match(cells), range(0, max(1, len(cells)), STEP)
        lengths, ids, values = [], [], []
        for start in steps:
            counts = by_gene(cells.counts[start : start + STEP], genes, len(self.genes))  # float64
            lengths.append(np.diff(counts.indptr))
            ids.append(counts.indices.astype(np.int32))
            values.append(np.log1p(counts.data.astype(np.float32)))
        return Tokens(ragged(np.concatenate(lengths)), np.concatenate(ids), np.concatenate(values))

    def _hashes(self, tokens: Tokens) -> np.ndarray:
        """Hash of each cell's content and `seed`, (C,) uint64."""
        values = cast("np.ndarray", tokens.values)
        salt, hashes = self.settings["seed"].to_bytes(4, "little"), []
        for cell in range(len(tokens)):
            inside = tokens.cell(cell)
            content = tokens.ids[inside].astype("<i4").tobytes() + values[inside].astype("<f4").tobytes()
            hashes.append(int.from_bytes(hashlib.blake2b(content, digest_size=8, salt=salt).digest(), "little"))
        return np.array(hashes, dtype=np.uint64)

    def _by_content(self, hashes: np.ndarray) -> list[np.ndarray]:
        """Rows of each context, ascending: parts of equal size, at most `context_size`, by rising hash."""
        n_contexts = -(-len(hashes) // self.settings["context_size"]) if self._cuts(len(hashes)) else 1
        return [np.sort(part) for part in np.array_split(np.argsort(hashes, kind="stable"), n_contexts)]

    def _by_rows(self, cells: Cells) -> np.ndarray:
        """Context of each cell as upstream has it, (C,) int64, numbered in the order in which upstream runs them."""
        size = self.settings["context_size"]
        labels = np.zeros(len(cells), dtype=np.int64)
        if cells.groups is not None:
            labels = np.unique(cells.groups, return_inverse=True)[1]
        contexts, n_contexts = np.empty(len(cells), dtype=np.int64), 0
        for label in range(labels.max(initial=-1) + 1):
            rows = np.flatnonzero(labels == label)
            runs = np.arange(len(rows)) // size if size else np.zeros(len(rows), dtype=np.int64)
            contexts[rows] = n_contexts + runs
            n_contexts += int(runs[-1]) + 1
        return contexts

    def _uniform(self, contexts: np.ndarray) -> np.ndarray:
        """Upstream's random numbers of each cell, (C, K) float32."""
        from scdrugmap.models.cellplm.noise import upstream_uniform

        drawn = upstream_uniform(
            np.bincount(contexts).tolist(),
            self.vocabulary["clusters"],
            self.vocabulary["latent"],
            self.settings["seed"],
        )
        uniform = np.empty_like(drawn)
        uniform[np.argsort(contexts, kind="stable")] = drawn
        return uniform
