"""tGPT's tokens: the symbols of the cell's top genes by falling expression, between a start and an end token.

Rules from the example of deeplearningplus/tGPT (at 9714a98) and its tokenizer.json. How upstream turns counts into a
line of genes is not published; what is left open is decided so:

* genes without a count are not ranked, so a cell that expresses fewer is a shorter sentence;
* genes of equal count stand in the order of the vocabulary (frequent in pretraining first), not of the columns;
* genes that the vocabulary lacks are left out before ranking: the lines that upstream trained on hold none.
  `compat="upstream"` keeps them: each is cut as upstream's tokenizer cuts it, and every `<unk>` takes a place.

A cell that expresses no known gene is start and end alone; the mean over its genes is a vector of zeros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Batch, Tokens, pad, ragged
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer

PAD, START, END, UNKNOWN = SPECIALS = ("<pad>", "</b>", "</s>", "<unk>")
WRITTEN = str.maketrans("-.", "__")  # HLA-A is HLA_A in the vocabulary
SPARE = re.compile(r"(extra_id_|unused)\d+|\W+")  # tokens of the vocabulary that are no genes
PIECE = re.compile(r"\w+|[^\w\s]+")  # the pre-tokenizer "Whitespace" of the tokenizers library


class Tokenizer(BaseTokenizer):
    """Vocabulary: `tokens` (name -> id) and `positions`; settings: `max_length` and `compat`."""

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        tokens = vocabulary["tokens"]
        self.pad_id, self.start, self.end, self.unknown = (tokens[name] for name in SPECIALS)
        self.max_length, positions = settings["max_length"], vocabulary["positions"]
        if not isinstance(self.max_length, int) or not 3 <= self.max_length <= positions:
            message = f"max_length={self.max_length!r} does not fit a model of {positions} positions."
            raise InvalidInput(message, f"Give a whole number from 3 to {positions}.")
        if settings["compat"] not in ("", "upstream"):
            message = f"compat='{settings['compat']}' is not known."
            raise InvalidInput(message, "Leave it out, or give compat='upstream'.")

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """All tokens that name a gene, as the vocabulary writes them."""
        tokens = vocabulary["tokens"].items()
        return {name: row for name, row in tokens if name not in SPECIALS and not SPARE.fullmatch(name)}

    def look_up(self, cells: Cells) -> np.ndarray:
        """Token of each column, -1 where the vocabulary lacks the symbol; (G,) int64."""
        names = (symbol.translate(WRITTEN) for symbol in cells.symbols.tolist())
        return np.array([self.genes.get(name, -1) for name in names], dtype=np.int64)

    def tokenize(self, cells: Cells) -> Tokens:
        """Give `</b>`, the top genes by falling count, and `</s>`: at most `max_length` tokens."""
        words = self._words(cells)
        counts = cells.counts
        places = {word: place for place, word in enumerate(sorted(set(words)))}
        order_of = np.array([places[word] for word in words], dtype=np.int64)  # (G,), decides among equal counts
        sentences = []
        for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
            columns = counts.indices[start:end]
            order = np.lexsort((order_of[columns], -counts.data[start:end]))
            sentences.append(self._sentence(words, columns[order]))
        offsets = ragged(np.array([len(sentence) for sentence in sentences], dtype=np.int64))
        return Tokens(offsets, np.concatenate([np.empty(0, dtype=np.int32), *sentences]))

    def collate(self, tokens: Tokens, rows: np.ndarray) -> Batch:
        """Pad the cells `rows`: ids (B, L), and pooled (B, L) True on all but padding, start and end."""
        ids = pad(tokens.ids, tokens, rows, self.pad_id)
        place, last = np.arange(ids.shape[1]), tokens.lengths[rows][:, None] - 1
        return {"ids": ids, "pooled": (place > 0) & (place < last)}

    def _words(self, cells: Cells) -> list[tuple[int, ...]]:
        """Tokens that each column is written with, (G,); none for a gene that is left out."""
        if self.settings["compat"] != "upstream":
            return [(token,) if token >= 0 else () for token in self.match(cells).tolist()]
        tokens = self.vocabulary["tokens"]
        cut = (PIECE.findall(symbol.translate(WRITTEN)) for symbol in cells.symbols.tolist())
        return [tuple(tokens.get(piece, self.unknown) for piece in pieces) for pieces in cut]

    def _sentence(self, words: list[tuple[int, ...]], columns: np.ndarray) -> np.ndarray:
        """Tokens of one cell whose columns are ranked, (n,) int32."""
        tokens: list[int] = []
        for column in columns:
            tokens.extend(words[column])
            if len(tokens) >= self.max_length - 2:
                break
        return np.array([self.start, *tokens[: self.max_length - 2], self.end], dtype=np.int32)
