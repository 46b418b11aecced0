"""UCE's tokens: genes drawn by their expression, in genome order, chromosome by chromosome.

Rules from `eval_data.sample_cell_sentences` (snap-stanford/UCE at 8ead6e0). A cell is `<cls>` and, for each chromosome
in a random order, the chromosome's token, its drawn genes by their start, and a closing token. `sample_size` genes are
drawn with replacement, each with a probability proportional to log1p of its count.

Upstream draws from NumPy's global generator, cell after cell. Here each cell has a generator of its own, seeded with
the cell's counts and `seed`: the same cell is the same sentence, whatever its row, its batch or the order of columns.
Columns of one gene are added up, and a count need not be whole (upstream cuts it off, so that log-normalised values
become zeros and ones). `compat="upstream"` takes one generator for all rows, upstream's rounding and columns as they
stand; it needs all cells at once, and batches are `upstream_batch_size` rows, since padding is then seen (`network`).

A cell that expresses no known gene, at which upstream stops, is `<cls>` alone: the model's answer to an empty sentence.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer
from scdrugmap.models.core.tokenizer import Tokens, by_gene, ragged

log = logging.getLogger(__name__)
PAD, CLOSE, CLS = 0, 2, 3  # token 1 opens a chromosome, and upstream never uses it
N_SPECIALS = 4
Sampled = tuple[np.ndarray, np.ndarray, np.random.RandomState]  # genes and weights of one cell, and its generator


class Tokenizer(BaseTokenizer):
    """Vocabulary: `genes` (upper-case symbols), `chromosomes` and `starts` of them, `tokens` and `positions`.

    Rows of our table are the specials, the genes and the chromosomes that they lie on; `token_ids` says which rows of
    upstream's table these are. Settings: `sample_size`, `seed`, `upstream_batch_size` and `compat`.
    """

    pad_id = PAD

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        self.chromosomes = np.array(vocabulary["chromosomes"], dtype=np.int64)  # (genes,), 0 .. n_chromosomes - 1
        self.starts = np.array(vocabulary["starts"], dtype=np.int64)  # (genes,)
        self.token_ids = np.array(vocabulary["tokens"], dtype=np.int64)  # (rows,)
        self.n_chromosomes = len(self.token_ids) - len(self.genes) - N_SPECIALS
        self.upstream = settings["compat"] == "upstream"
        self.sample_size: int = settings["sample_size"]
        self._warned = False
        self._check_settings(vocabulary["positions"] - 1 - 2 * self.n_chromosomes)

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """Give the place of each symbol among the genes; its row is `N_SPECIALS` further down."""
        return {symbol: place for place, symbol in enumerate(vocabulary["genes"])}

    @property
    def independent(self) -> bool:
        """Whether each cell has a generator of its own."""
        return not self.upstream

    @property
    def context(self) -> str:
        """Who sees whom."""
        batch = f"rows in order: one generator, padded in batches of {self.settings['upstream_batch_size']}"
        return batch if self.upstream else super().context

    def look_up(self, cells: Cells) -> np.ndarray:
        """Gene of each column, -1 where the model knows none; case does not matter; (G,) int64."""
        return np.array([self.genes.get(name.upper(), -1) for name in cells.symbols.tolist()], dtype=np.int64)

    def tokenize(self, cells: Cells) -> Tokens:
        """Draw the genes of each cell and put them in order."""
        if not self._warned and (cells.counts.data % 1).any():
            self._warned = True
            log.warning("UCE draws genes by raw counts, and some of these values are not whole numbers")
        sampled = self._upstream_cells(cells) if self.upstream else self._own_cells(cells)
        sentences = [self._sentence(*cell) for cell in sampled]
        offsets = ragged(np.array([len(sentence) for sentence in sentences], dtype=np.int64))
        return Tokens(offsets, np.concatenate([np.empty(0, dtype=np.int32), *sentences]))

    def plan(self, tokens: Tokens, batch_size: int | None, budget: int) -> list[np.ndarray]:
        """Batch cells of like length, or the rows that upstream pads together."""
        if not self.upstream:
            return super().plan(tokens, batch_size, budget)
        step = self.settings["upstream_batch_size"]
        return [np.arange(start, min(start + step, len(tokens))) for start in range(0, len(tokens), step)]

    def _own_cells(self, cells: Cells) -> Iterator[Sampled]:
        """Known genes of each cell in the model's order, and a generator that only their counts and `seed` decide."""
        counts = by_gene(cells.counts, self.match(cells), len(self.genes))
        for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
            genes, values = counts.indices[start:end], counts.data[start:end]
            yield genes, sampling_weights(values), content_generator(genes, values, self.settings["seed"])

    def _upstream_cells(self, cells: Cells) -> Iterator[Sampled]:
        """Known columns of each cell in the data's order, and the one generator of all cells."""
        from scdrugmap.models.uce.upstream import upstream_weights

        genes = self.match(cells)
        columns = np.flatnonzero(genes >= 0)
        genes, counts = genes[columns], cells.counts[:, columns]
        generator = np.random.RandomState(self.settings["seed"])
        for row in range(len(cells)):
            weights = upstream_weights(counts[row].toarray()[0])  # (known columns,)
            expressed = np.flatnonzero(weights)
            yield genes[expressed], weights[expressed], generator

    def _sentence(self, genes: np.ndarray, weights: np.ndarray, generator: np.random.RandomState) -> np.ndarray:
        """Tokens of one cell: 1 + `sample_size` + 2 for each chromosome that was drawn, or `<cls>` alone."""
        if not len(genes):
            return np.array([CLS], dtype=np.int32)
        drawn = genes[generator.choice(len(genes), self.sample_size, p=weights)]  # (sample_size,)
        present = np.unique(self.chromosomes[drawn])
        generator.shuffle(present)
        turn_of = np.empty(self.n_chromosomes, dtype=np.int64)
        turn_of[present] = np.arange(len(present))
        turns = turn_of[self.chromosomes[drawn]]
        order = np.lexsort((drawn, self.starts[drawn], turns))
        drawn, turns = drawn[order], turns[order]
        ends = np.cumsum(np.bincount(turns, minlength=len(present)))  # genes before a chromosome's end
        before = 2 * np.arange(len(present))  # chromosome tokens before a chromosome's own
        sentence = np.empty(1 + len(drawn) + 2 * len(present), dtype=np.int32)
        sentence[0] = CLS
        sentence[2 + np.arange(len(drawn)) + 2 * turns] = N_SPECIALS + drawn
        sentence[1 + np.append(0, ends[:-1]) + before] = N_SPECIALS + len(self.genes) + present
        sentence[2 + ends + before] = CLOSE
        return sentence

    def _check_settings(self, room: int) -> None:
        """Raise `InvalidInput` for a setting that makes no sense; `room` is left beside chromosomes and `<cls>`."""
        size, batch = self.sample_size, self.settings["upstream_batch_size"]
        if not isinstance(size, int) or not 1 <= size <= room:
            message = f"sample_size={size!r} does not fit a model of {self.vocabulary['positions']} positions."
            raise InvalidInput(message, f"Give a whole number from 1 to {room}.")
        if not isinstance(batch, int) or batch < 1:
            message = f"upstream_batch_size={batch!r} is not a number of cells."
            raise InvalidInput(message, "Give a whole number of at least 1.")
        if not isinstance(self.settings["seed"], int) or not 0 <= self.settings["seed"] < 2**32:
            message = f"seed={self.settings['seed']!r} is not a seed."
            raise InvalidInput(message, "Give a whole number from 0 to 4294967295.")
        if self.settings["compat"] not in ("", "upstream"):
            message = f"compat='{self.settings['compat']}' is not known."
            raise InvalidInput(message, "Leave it out, or give compat='upstream'.")


def sampling_weights(counts: np.ndarray) -> np.ndarray:
    """Probability of each gene of a cell, (n,) float64: log1p of its count over the sum of these."""
    weights = np.log1p(counts.astype(np.float64))
    return weights / weights.sum() if len(weights) else weights


def content_generator(genes: np.ndarray, counts: np.ndarray, seed: int) -> np.random.RandomState:
    """Generator of one cell, seeded with its genes and counts in the model's order.

    `RandomState` is the generator whose numbers NumPy has promised never to change.
    """
    content = genes.astype("<i4").tobytes() + counts.astype("<f4").tobytes()
    digest = hashlib.blake2b(content, digest_size=16, salt=seed.to_bytes(4, "little")).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4").astype(np.uint32))
