"""An `Encoder`: a loaded model that turns cells into vectors, the same loop for all models.

Cells are sorted by length, cut into batches of a budget of padded tokens, and put back in their order at the end; one
thread prepares the next batches while the network works on this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scdrugmap.errors import InvalidInput
from scdrugmap.models.card import ModelCard
from scdrugmap.models.inputs import Cells
from scdrugmap.models.tokens import Batch, Tokenizer, Tokens
from scdrugmap.progress import Progress, reporting

if TYPE_CHECKING:
    from anndata import AnnData

TOKEN_BUDGET = {"cpu": 8_192, "cuda": 131_072}  # padded positions a batch
SHARE_FLOOR = 0.05  # of the counts that must lie on genes the model knows
CHUNK_CELLS = 4_096  # cells tokenized at a time: memory stays flat in the number of cells


@dataclass(frozen=True)
class Coverage:
    """How much of a matrix a model can see. `share_counts` below `floor` is refused."""

    n_matched: int  # columns whose gene the model knows
    n_genes: int  # columns
    share_genes: float
    share_counts: float  # of all counts (of absolute values for z-scores), those on known genes
    floor: float
    n_empty: int  # cells without a count on any known gene


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
        """Count the genes and counts of `adata` that the model knows; refuses nothing."""
        return self._coverage(Cells.of(adata))

    def tokenize(self, adata: AnnData) -> Tokens:
        """Turn cells into ragged tokens, in the order of `adata`.

        Raises `InvalidInput` for values that the model cannot take and when less than `SHARE_FLOOR` of the counts lie
        on genes that it knows.
        """
        cells = Cells.of(adata)
        self._check(cells)
        return self.tokenizer.tokenize(cells)

    def check(self, adata: AnnData) -> None:
        """Raise the `InvalidInput` that `tokenize` would; of many cells it looks at `CHUNK_CELLS`, evenly spread."""
        if adata.n_obs > CHUNK_CELLS:
            adata = adata[np.linspace(0, adata.n_obs - 1, CHUNK_CELLS).astype(np.int64)]
        self._check(Cells.of(adata))

    def encode(
        self, tokens: Tokens, batch_size: int | None = None, progress: Progress = False, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Run the network over tokens: (n_cells, dim) float32, in the tokens' order.

        `batch_size` caps the cells of a batch in place of the token budget and does not change the result beyond
        rounding. `out` may be an array or memory map of that shape to write into.
        """
        return self._run([(0, tokens)], len(tokens), batch_size, progress, out)

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
        step = CHUNK_CELLS if self.independent else max(adata.n_obs, 1)
        starts = range(0, adata.n_obs, step)
        chunks = ((start, self._tokenize_some(adata, start, start + step)) for start in starts)
        return self._run(chunks, adata.n_obs, batch_size, progress, out)

    def fit(self, adata: AnnData) -> Encoder:
        """Give a new encoder of the same kind whose genes and loadings are those of these training cells.

        Only baselines (`card.fitted`) have that; raises `InvalidInput` for the others.
        """
        from scdrugmap.models.loading import refit

        return refit(self, Cells.of(adata))

    def _tokenize_some(self, adata: AnnData, start: int, stop: int) -> Tokens:
        part = adata if stop - start >= adata.n_obs else adata[start:stop]
        return self.tokenizer.tokenize(Cells.of(part))

    def _run(
        self,
        chunks: Iterable[tuple[int, Tokens]],
        n_cells: int,
        batch_size: int | None,
        progress: Progress,
        out: np.ndarray | None,
    ) -> np.ndarray:
        if batch_size is not None and batch_size < 1:
            message = f"batch_size={batch_size} is not a number of cells."
            raise InvalidInput(message, "Give a whole number of at least 1, or leave it out.")
        result = np.empty((n_cells, self.dim), dtype=np.float32) if out is None else out
        with reporting(progress, n_cells, "cell") as tell, torch.inference_mode():
            for rows, batch in prefetch(self._batches(chunks, batch_size)):
                result[rows] = self.forward(batch).float().cpu().numpy()
                tell(len(rows))
        return result

    def _batches(
        self, chunks: Iterable[tuple[int, Tokens]], batch_size: int | None
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        budget = TOKEN_BUDGET[self.device.type]
        for start, tokens in chunks:
            for rows in self.tokenizer.plan(tokens, batch_size, budget):
                yield rows + start, self.tokenizer.collate(tokens, rows)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Run the network on one collated batch, on the encoder's device and in its precision; (C, dim)."""
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.network(**tensors)

    def _coverage(self, cells: Cells) -> Coverage:
        known = self.tokenizer.match(cells) >= 0
        weight = abs(cells.counts)
        total, seen = float(weight.sum()), weight[:, np.flatnonzero(known)]
        return Coverage(
            n_matched=int(known.sum()),
            n_genes=len(known),
            share_genes=float(known.mean()) if len(known) else 0.0,
            share_counts=float(seen.sum()) / total if total else 0.0,
            floor=SHARE_FLOOR,
            n_empty=int((np.diff(seen.indptr) == 0).sum()),
        )

    def _check(self, cells: Cells) -> None:
        if cells.value_type == "zscore" and not self.tokenizer.takes_zscores:
            message = (
                f"The matrix holds z-scores, from which {self.card.title} cannot tell which genes a cell expresses."
            )
            raise InvalidInput(message, "Use counts or log-normalised values, or the models hvg and hvg-pca.")
        found = self._coverage(cells)
        if found.n_matched and (found.share_counts >= found.floor or not cells.counts.nnz):
            return
        message = (
            f"{self.card.title} knows {found.n_matched} of the {found.n_genes} genes, which hold "
            f"{found.share_counts:.1%} of the counts; at least {found.floor:.0%} is needed."
        )
        kind = "gene symbols (TP53)" if self.tokenizer.identifier == "symbol" else 'Ensembl ids in var["ensembl_id"]'
        shown = ", ".join(cells.symbols[:3])
        raise InvalidInput(
            message, f"It looks for {kind}; var_names begin with {shown}. Read the file with scdrugmap.read_h5ad."
        )


def prefetch(batches: Iterator[tuple[np.ndarray, Batch]]) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield the same items while one thread prepares the next; an error of that thread is raised here."""
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        coming = pool.submit(next, batches, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, batches, end)
            yield item  # type: ignore[misc]
