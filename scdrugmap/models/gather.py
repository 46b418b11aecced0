"""Some cells of ragged tokens, and the tokens of several data sets behind each other. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scdrugmap.models.tokens import Tokens, ragged


def take(tokens: Tokens, rows: np.ndarray) -> Tokens:
    """Return the tokens of the cells `rows` (n,), in that order; a cell may be named twice."""
    lengths = tokens.lengths[rows]
    offsets = ragged(lengths)
    places = np.arange(offsets[-1]) + np.repeat(tokens.offsets[rows] - offsets[:-1], lengths)  # (T of these cells,)
    return replace(
        tokens,
        offsets=offsets,
        ids=tokens.ids[places],
        values=None if tokens.values is None else tokens.values[places],
        extra={name: array[places] for name, array in tokens.extra.items()},
        cells={name: array[rows] for name, array in tokens.cells.items()},
    )


def join(parts: Sequence[Tokens]) -> Tokens:
    """Return the tokens of all parts, which one tokenizer made, as those of one data set.

    The data sets may differ in their genes: a token names a row of the model's own vocabulary.
    """
    first = parts[0]
    values = [part.values for part in parts if part.values is not None]
    return replace(
        first,
        offsets=ragged(np.concatenate([part.lengths for part in parts])),
        ids=np.concatenate([part.ids for part in parts]),
        values=np.concatenate(values) if values else None,
        extra={name: np.concatenate([part.extra[name] for part in parts]) for name in first.extra},
        cells={name: np.concatenate([part.cells[name] for part in parts]) for name in first.cells},
    )
