"""An `Encoder`: a loaded model that turns cells into vectors, the same loop for all models.

Cells are read and tokenized part by part, sorted by length within a part, cut into batches of a budget of padded
tokens, and written to their rows of the result; one thread prepares the next batches while the network works on this
one (`batch_runner`). Cells that see each other (CellPLM) are one part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scdrugmap.errors import InvalidInput
from scdrugmap.models.card import ModelCard
from scdrugmap.models.core import batch_runner
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.ragged import join
from scdrugmap.models.core.tokenizer import Batch, Tokenizer, Tokens
from scdrugmap.progress import Progress, reporting

if TYPE_CHECKING:
    from anndata import AnnData

SHARE_FLOOR = 0.05  # of the counts that must lie on genes the model knows
CHUNK_CELLS = 1_024  # cells read and tokenized at a time: memory stays flat in the number of cells
PIECE_CELLS = 256  # read at a time where only their hashes or tokens are kept, or where they lie scattered in the file
CHECKED_CELLS = 4_096  # cells, evenly spread, that are looked at before any is embedded


@dataclass(frozen=True)
class Coverage:
    """How much of a matrix a model can see. `share_counts` below `floor` is refused."""

    n_matched: int  # columns whose gene the model knows
    n_genes: int  # columns
    share_genes: float
    share_counts: float  # of all counts (of absolute values for z-scores), those on known genes
    floor: float
    n_empty: int  # cells without a count on any known gene
    n_counts: float  # all counts (absolute values for z-scores)


class Encoder:
    """A loaded model. Made by `load_model`; `embed` is `encode(tokenize(adata))` with memory flat in the cells.

    Attributes: `card`, `dim` (width of an embedding), `device`, `precision`, `settings`, `weights_hash` ("sha256:..."
    over the upstream files), `tokenizer` and `network`, whose `forward` takes a collated batch and gives (C, dim).
    """

    def __init__(
        self,
        card: ModelCard,
        tokenizer: Tokenizer,
        network: nn.Module,
        settings: Mapping[str, Any],
        weights_hash: str,
        device: torch.device,
        precision: str,
    ) -> None:
        self.card = card
        self.tokenizer = tokenizer
        self.network = network
        self.settings = dict(settings)
        self.weights_hash = weights_hash
        self.device = device
        self.precision = precision
        self._compiled: batch_runner.Compiled | None = None

    def __repr__(self) -> str:
        return f"<{self.card.title} encoder, {self.dim} wide, on {self.device} in {self.precision}>"

    @property
    def dim(self) -> int:
        """Width of a cell's embedding."""
        return int(self.network.dim)  # type: ignore[arg-type]

    @property
    def independent(self) -> bool:
        """Whether a cell's embedding depends on that cell alone; where not, all cells must be embedded at once."""
        return not self.card.context and self.tokenizer.independent

    def coverage(self, adata: AnnData) -> Coverage:
        """Count the genes and counts of `adata` (may be backed) that the model knows; refuses nothing."""
        return self._coverage(Cells.from_anndata(some) for some in pieces(adata))

    def tokenize(self, adata: AnnData) -> Tokens:
        """Turn cells into ragged tokens, in the order of `adata`.

        Raises `InvalidInput` for values that the model cannot take and when less than `SHARE_FLOOR` of the counts lie
        on genes that it knows.
        """
        cells = Cells.from_anndata(adata)
        self._check([cells])
        return self.tokenizer.tokenize(cells)

    def check(self, adata: AnnData) -> None:
        """Raise the `InvalidInput` that `tokenize` would; of many cells it looks at `CHECKED_CELLS`, evenly spread."""
        rows = None
        if adata.n_obs > CHECKED_CELLS:
            rows = np.linspace(0, adata.n_obs - 1, CHECKED_CELLS).astype(np.int64)
        self._check(Cells.from_anndata(some) for some in pieces(adata, rows, PIECE_CELLS))

    def encode(
        self, tokens: Tokens, batch_size: int | None = None, progress: Progress = False, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Run the network over tokens: (n_cells, dim) float32, in the tokens' order.

        `batch_size` caps the cells of a batch in place of the token budget and does not change the result beyond
        rounding. `out` may be an array or memory map of that shape to write into.
        """
        return self._run([(np.arange(len(tokens)), tokens)], len(tokens), batch_size, progress, out)

    def embed(
        self,
        adata: AnnData,
        batch_size: int | None = None,
        progress: Progress = False,
        out: np.ndarray | None = None,
        *,
        checked: bool = False,
    ) -> np.ndarray:
        """Embed cells: (n_cells, dim) float32, in the order of `adata`; may be backed. Raises as `tokenize` does.

        `checked` says that these are a part of cells that `check` has seen: few cells may lie below the floor.
        """
        if not checked:
            self.check(adata)
        parts = self.parts(adata, CHUNK_CELLS)
        chunks = ((rows, self._tokens(adata, rows)) for rows in parts)
        return self._run(chunks, adata.n_obs, batch_size, progress, out)

    def parts(self, adata: AnnData, n_cells: int) -> list[np.ndarray]:
        """Rows that can be embedded apart from all others: `n_cells` neighbours or, where cells see each other, a
        context of the model."""
        if self.independent:
            return [np.arange(start, min(start + n_cells, adata.n_obs)) for start in range(0, adata.n_obs, n_cells)]
        if self.tokenizer.independent:  # the card says that they are not
            return [np.arange(adata.n_obs)]
        return self.tokenizer.contexts(
            (Cells.from_anndata(some) for some in pieces(adata, n_cells=PIECE_CELLS)), adata.n_obs
        )

    def compile(self) -> Encoder:
        """Let `torch.compile` translate the network's blocks when they first run, and give this encoder.

        Embeddings change by rounding alone. Where there is no working compiler it says so in the log and runs as it is.
        """
        if self._compiled is None:
            self._compiled = batch_runner.Compiled(self.network)
        return self

    def _tokens(self, adata: AnnData, rows: np.ndarray) -> Tokens:
        """Tokens of one of `parts`."""
        if self.independent or not self.tokenizer.piecewise:
            return self.tokenizer.tokenize(Cells.from_anndata(some_of(adata, rows)))
        return join(self.tokenizer.tokenize(Cells.from_anndata(some)) for some in pieces(adata, rows, PIECE_CELLS))

    def _run(
        self,
        chunks: Iterable[tuple[np.ndarray, Tokens]],
        n_cells: int,
        batch_size: int | None,
        progress: Progress,
        out: np.ndarray | None,
    ) -> np.ndarray:
        if batch_size is not None and batch_size < 1:
            message = f"batch_size={batch_size} is not a number of cells."
            raise InvalidInput(message, "Give a whole number of at least 1, or leave it out.")
        result = np.empty((n_cells, self.dim), dtype=np.float32) if out is None else out
        runner = batch_runner.Runner(self._forward, self.device, divisible=self.independent)
        with reporting(progress, n_cells, "cell") as tell, torch.inference_mode():
            for rows, z in runner.run(self._batches(chunks, batch_size, runner)):
                result[rows] = z
                tell(len(rows))
        return result

    def _batches(
        self, chunks: Iterable[tuple[np.ndarray, Tokens]], batch_size: int | None, runner: batch_runner.Runner
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        for part, tokens in chunks:
            plan = deque(self.tokenizer.plan(tokens, batch_size, runner.budget))
            while plan:
                rows = plan.popleft()
                batch = self.tokenizer.collate(tokens, rows)
                if not plan:
                    del tokens  # before the last batch is copied, and the next are made
                yield part[rows], batch

    def forward(self, batch: Batch) -> torch.Tensor:
        """Run the network on one collated batch, on the encoder's device and in its precision; (C, dim)."""
        return self._forward(batch_runner.to_device(batch_runner.host_tensors(dict(batch), self.device), self.device))

    def _forward(self, tensors: batch_runner.Tensors) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return (self._compiled or self.network)(**tensors)

    def _coverage(self, parts: Iterable[Cells]) -> Coverage:
        columns, total, seen, n_empty = np.zeros(0, dtype=bool), 0.0, 0.0, 0
        for cells in parts:
            columns = self.tokenizer.match(cells) >= 0
            weight = abs(cells.counts)
            known = weight[:, np.flatnonzero(columns)]
            total, seen = total + float(weight.sum()), seen + float(known.sum())
            n_empty += int((np.diff(known.indptr) == 0).sum())
        return Coverage(
            n_matched=int(columns.sum()),
            n_genes=len(columns),
            share_genes=float(columns.mean()) if len(columns) else 0.0,
            share_counts=seen / total if total else 0.0,
            floor=SHARE_FLOOR,
            n_empty=n_empty,
            n_counts=total,
        )

    def _check(self, parts: Iterable[Cells]) -> None:
        symbols = np.zeros(0, dtype=str)

        def checked_cells() -> Iterator[Cells]:
            nonlocal symbols
            for cells in parts:
                symbols = cells.symbols
                self._check_kind(cells)
                yield cells

        coverage = self._coverage(checked_cells())
        if coverage.n_matched and (coverage.share_counts >= coverage.floor or not coverage.n_counts):
            return
        message = (
            f"{self.card.title} knows {coverage.n_matched} of the {coverage.n_genes} genes, which hold "
            f"{coverage.share_counts:.1%} of the counts; at least {coverage.floor:.0%} is needed."
        )
        kind = "gene symbols (TP53)" if self.tokenizer.identifier == "symbol" else 'Ensembl ids in var["ensembl_id"]'
        shown = ", ".join(symbols[:3])
        raise InvalidInput(
            message, f"It looks for {kind}; var_names begin with {shown}. Read the file with scdrugmap.read_h5ad."
        )

    def _check_kind(self, cells: Cells) -> None:
        if cells.value_type != "zscore" or self.tokenizer.takes_zscores:
            return
        message = f"The matrix holds z-scores, from which {self.card.title} cannot tell which genes a cell expresses."
        raise InvalidInput(message, "Use counts or log-normalised values, or the models hvg and hvg-pca.")


def some_of(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Cells of these rows, ascending: a view, or `adata` itself where they are all of them."""
    if len(rows) == adata.n_obs:
        return adata
    neighbours = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1
    return adata[rows[0] : rows[-1] + 1] if neighbours else adata[rows]


def pieces(adata: AnnData, rows: np.ndarray | None = None, n_cells: int | None = None) -> Iterator[AnnData]:
    """Cells of `adata`, or of these ascending rows, `n_cells` at a time (`CHUNK_CELLS` if not given); at least one
    piece, which may be empty."""
    rows, step = np.arange(adata.n_obs) if rows is None else rows, n_cells or CHUNK_CELLS
    for start in range(0, max(1, len(rows)), step):
        yield some_of(adata, rows[start : start + step])
