"""Ragged tokens and the batches made of them. Numpy only; each model's `tokens.py` builds on `Tokenizer`.

C cells, T tokens of all cells together, B cells of a batch, L longest cell of the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import sparse

from scdrugmap.models.core.cells import Cells

Batch = dict[str, np.ndarray]  # the keyword arguments of the network's `forward`


@dataclass(frozen=True)
class Tokens:
    """Tokens of C cells, one behind the other: cell c owns positions `offsets[c]:offsets[c + 1]`."""

    offsets: np.ndarray  # (C + 1,) int64
    ids: np.ndarray  # (T,) int32, rows of the network's token table
    values: np.ndarray | None = None  # (T,) float32
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)  # more arrays of one entry a token, (T, ...)
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)  # arrays of one entry a cell, (C, ...)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens a cell, (C,) int64."""
        return np.diff(self.offsets)

    def cell(self, index: int) -> slice:
        """Positions of one cell."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))


class Tokenizer(ABC):
    """From counts to `Tokens` to padded batches; a model overrides what is its own.

    Built from the checkpoint's vocabulary (plain JSON values) and the settings of the card.
    """

    identifier: ClassVar[Literal["symbol", "ensembl"]] = "symbol"
    takes_zscores: ClassVar[bool] = False
    pad_id: int = 0
    pad_value: float = 0.0

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self.vocabulary = vocabulary
        self.settings = settings
        self.genes = self.read_genes(vocabulary)

    @abstractmethod
    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """Give the identifiers that the model knows and their row."""

    @abstractmethod
    def tokenize(self, cells: Cells) -> Tokens:
        """Turn expression into tokens; a cell without any known gene gets what the model's docstring says."""

    @property
    def independent(self) -> bool:
        """Whether a cell's embedding depends on that cell alone; where not, all cells are embedded together."""
        return True

    @property
    def piecewise(self) -> bool:
        """Whether the cells of one of `contexts` may be tokenized some at a time, for the memory."""
        return self.independent

    @property
    def context(self) -> str:
        """Who sees whom, in words, for the provenance of an embedding."""
        return "each cell by itself"

    def contexts(self, parts: Iterable[Cells], n_cells: int) -> list[np.ndarray]:
        """Rows of the cells that have to be embedded together, ascending, where cells see each other: all of them.

        `parts` gives the `n_cells` cells in their order, some at a time; a model that needs no look at them takes none.
        """
        return [np.arange(n_cells)]

    def notes(self, cells: Cells) -> Sequence[str]:
        """Give what else than values and gene names decides the cells' tokens, for the key of their embedding."""
        return ()

    def match(self, cells: Cells) -> np.ndarray:
        """Row of the model's vocabulary for each column, -1 where it knows none; (G,) int64.

        A published vocabulary keeps the symbols of its day: where it knows a column by no current name, the name that
        the file gave it is looked up, unless that row has a column already.
        """
        rows = self.look_up(cells)
        if cells.older_names is None:
            return rows
        older = self.look_up(replace(cells, symbols=cells.older_names))
        columns = np.flatnonzero((rows < 0) & (older >= 0) & ~np.isin(older, rows))
        _, first = np.unique(older[columns], return_index=True)
        rows[columns[first]] = older[columns[first]]
        return rows

    def look_up(self, cells: Cells) -> np.ndarray:
        """Row of the model's vocabulary for each column by its current name, -1 where it knows none; (G,) int64."""
        names = cells.symbols
        if self.identifier == "ensembl" and cells.ensembl_ids is not None:
            names = cells.ensembl_ids
        return np.array([self.genes.get(name, -1) for name in names.tolist()], dtype=np.int64)

    def costs(self, tokens: Tokens) -> np.ndarray:
        """Positions that a cell takes in the network, (C,): what the batcher counts."""
        return np.maximum(tokens.lengths, 1)

    def plan(self, tokens: Tokens, batch_size: int | None, budget: int) -> list[np.ndarray]:
        """Cells of each batch: like lengths together, `batch_size` cells at most or, without it, `budget` positions."""
        return plan_batches(self.costs(tokens), batch_size, budget)

    def collate(self, tokens: Tokens, rows: np.ndarray) -> Batch:
        """Pad the cells `rows` to the longest of them: ids (B, L), values (B, L), mask (B, L) True on tokens.

        The mask is left out where all cells are equally long: attention without a mask is faster.
        """
        lengths = tokens.lengths[rows]
        batch = {"ids": pad(tokens.ids, tokens, rows, self.pad_id)}
        if tokens.values is not None:
            batch["values"] = pad(tokens.values, tokens, rows, self.pad_value)
        if (lengths != lengths.max()).any():
            batch["mask"] = np.arange(lengths.max()) < lengths[:, None]
        return batch


def pad(flat: np.ndarray, tokens: Tokens, rows: np.ndarray, fill: float) -> np.ndarray:
    """Give the entries of `flat` (T,) that belong to the cells `rows`, padded on the right; (B, L)."""
    lengths = tokens.lengths[rows]
    width = np.arange(lengths.max(initial=0))
    inside = width < lengths[:, None]  # (B, L)
    out = np.full(inside.shape, fill, dtype=flat.dtype)
    out[inside] = flat[(tokens.offsets[rows][:, None] + width)[inside]]
    return out


def by_gene(counts: sparse.csr_matrix, genes: np.ndarray, n_genes: int) -> sparse.csr_matrix:
    """Put columns (C, G) in the model's order, (C, n_genes) float64, sorted; columns of one gene are added up.

    `genes` (G,) says which gene a column is; columns where it is negative are left out.
    """
    columns = np.flatnonzero(genes >= 0)
    where = (np.arange(len(columns)), genes[columns])
    columns_to_genes = sparse.csr_matrix((np.ones(len(columns)), where), shape=(len(columns), n_genes))
    ordered = sparse.csr_matrix(counts[:, columns].astype(np.float64) @ columns_to_genes)
    ordered.sort_indices()
    return ordered


def plan_batches(costs: np.ndarray, batch_size: int | None, budget: int) -> list[np.ndarray]:
    """Cut the cells, dearest first, into batches whose padded size (cells x dearest) stays within `budget`.

    The dearest batch comes first, so that memory runs out at once or never. A `batch_size` replaces the budget.
    """
    order = np.argsort(-costs, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = batch_size or max(1, budget // int(costs[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def ragged(lengths: np.ndarray) -> np.ndarray:
    """Offsets (C + 1,) int64 of cells with these lengths (C,)."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
