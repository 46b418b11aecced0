"""From cells to the tokens of a text model: a sentence a cell (core/cell_text.py), cut by the model's own tokenizer.

Settings: `top_k` genes a cell; `text` "names" or "values"; `about`, a list of "drug", "cancer_type" and "tissue" with
commas between them, puts what obs says of the cell before its genes; `max_length` tokens at most, the rest of a text is
left out. `compat="upstream"` writes the text of scDrugMap's published script instead (all columns with their raw
values, zeros included, in the order of the file, of which the first `max_length` tokens are read).

A cell that expresses no gene is an empty text: the model's special tokens alone, or token 0 where it has none.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models.core.cell_text import gene_columns, metadata_line, sentences
from scdrugmap.models.core.cells import ABOUT, Cells
from scdrugmap.models.core.tokenizer import Tokenizer as BaseTokenizer
from scdrugmap.models.core.tokenizer import Tokens, plan_batches, ragged


class Tokenizer(BaseTokenizer):
    """Vocabulary: `tokenizer` (the text of a tokenizer.json) and `positions` (tokens that the network can place).

    `padded` is set to False for a network that padding would change: a batch is then of cells of one length.
    """

    padded = True

    def __init__(self, vocabulary: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__(vocabulary, settings)
        self.about = _about(settings["about"])
        self.rule = _rule(settings)
        _require_count(settings["top_k"])
        longest, positions = settings["max_length"], vocabulary["positions"]
        if not isinstance(longest, int) or not 4 <= longest <= positions:
            message = f"max_length={longest!r} does not suit a model that reads up to {positions} tokens."
            raise InvalidInput(message, f"Give max_length from 4 to {positions} (typed: --set max_length={positions}).")
        self.words = read_tokenizer(vocabulary["tokenizer"])
        self.words.no_padding()
        self.words.enable_truncation(longest)

    def read_genes(self, vocabulary: Mapping[str, Any]) -> dict[str, int]:
        """Nothing: a text model has no list of genes."""
        return {}

    def match(self, cells: Cells) -> np.ndarray:
        """Each column that has a gene symbol is its own row, (G,) int64; older names of the file are not looked up."""
        named = gene_columns(cells)
        return np.where(named, np.arange(len(named)), -1)

    def notes(self, cells: Cells) -> Sequence[str]:
        """Give the columns of obs that the text repeats."""
        return [value for name in self.about for value in (name, *_column(cells, name).tolist())]

    def texts(self, cells: Cells) -> list[str]:
        """Give what the model reads of each cell."""
        genes = sentences(cells, self.settings["top_k"], self.rule)
        if not self.about:
            return genes
        columns = [_column(cells, name).tolist() for name in self.about]
        lines = (_line(self.about, values) for values in zip(*columns, strict=True))
        return [f"{line} {sentence}".strip() for line, sentence in zip(lines, genes, strict=True)]

    def plan(self, tokens: Tokens, batch_size: int | None, budget: int) -> list[np.ndarray]:
        """Cells of each batch, as for every model; of one length where padding is not to be."""
        if self.padded:
            return super().plan(tokens, batch_size, budget)
        alike = [np.flatnonzero(tokens.lengths == length) for length in np.unique(tokens.lengths)[::-1]]
        costs = self.costs(tokens)
        return [rows[part] for rows in alike for part in plan_batches(costs[rows], batch_size, budget)]

    def tokenize(self, cells: Cells) -> Tokens:
        """Give the token ids of each cell's text, special tokens included."""
        encoded = [text.ids or [0] for text in self.words.encode_batch_fast(self.texts(cells))]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        flat = (
            np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded]) if encoded else np.empty(0, np.int32)
        )
        return Tokens(ragged(lengths), flat)


def read_tokenizer(text: str) -> tokenizers.Tokenizer:
    """Read the text of a tokenizer.json; raises `WeightsInvalid`."""
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        message = f"tokenizer.json cannot be read ({error})."
        raise WeightsInvalid(message, "Get the file again from its source.") from error


def _require_count(top_k: Any) -> None:
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        message = f"top_k={top_k!r} is not a number of genes."
        raise InvalidInput(message, "Give a whole number of at least 1.")


def _rule(settings: Mapping[str, Any]) -> str:
    if settings["compat"] not in ("", "upstream"):
        message = f"compat='{settings['compat']}' is not known."
        raise InvalidInput(message, "Leave it out, or give compat='upstream'.")
    if settings["text"] not in ("names", "values"):
        message = f"text='{settings['text']}' is not known."
        raise InvalidInput(message, "Give 'names' or 'values'.")
    return settings["compat"] or settings["text"]


def _about(setting: str) -> tuple[str, ...]:
    """Columns of obs that a text begins with, in one order whatever the setting's."""
    given = [name.strip() for name in str(setting).split(",") if name.strip()]
    for name in given:
        if name not in ABOUT:
            message = f"about='{setting}' names '{name}', which a text does not tell."
            raise InvalidInput(message, f"Give some of {', '.join(ABOUT)} with commas between them.")
    return tuple(name for name in ABOUT if name in given)


def _column(cells: Cells, name: str) -> np.ndarray:
    if name not in cells.about:
        message = f"about='{name}' needs a column obs['{name}'], which the cells do not have."
        raise InvalidInput(message, f"Fill obs['{name}'], or leave it out of the setting.")
    return cells.about[name]


@functools.lru_cache(maxsize=1024)
def _line(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return metadata_line(**dict(zip(names, values, strict=True)))
