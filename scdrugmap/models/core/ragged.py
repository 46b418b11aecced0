"""Some cells of ragged tokens, and the tokens of several data sets behind each other. Numpy only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from scdrugmap.models.core.tokenizer import Tokens, ragged


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


def join(parts: Iterable[Tokens]) -> Tokens:
    """Return the tokens of all parts, at least one, which one tokenizer made, as those of one data set.

    The data sets may differ in their genes: a token names a row of the model's own vocabulary. Kinds of arrays are
    joined one after the other: of parts that nobody else holds, only the kind at hand is in memory twice.
    """
    lengths, arrays = _arrays(parts)
    joined = {place: np.concatenate(arrays.pop(place)) for place in list(arrays)}
    extra, cells = ({name: array for (kind, name), array in joined.items() if kind == of} for of in ("extra", "cells"))
    offsets = ragged(np.concatenate(lengths))
    return Tokens(offsets, joined["token", "ids"], joined.get(("token", "values")), extra, cells)


def _arrays(parts: Iterable[Tokens]) -> tuple[list[np.ndarray], dict[tuple[str, str], list[np.ndarray]]]:
    """Lengths of each part's cells, and its arrays by what they belong to and their name."""
    lengths, arrays = [], defaultdict(list)
    for part in parts:
        lengths.append(part.lengths)
        by_token = {"ids": part.ids} | ({} if part.values is None else {"values": part.values})
        for kind, by_name in (("token", by_token), ("extra", part.extra), ("cells", part.cells)):
            for name, array in by_name.items():
                arrays[kind, name].append(array)
    return lengths, arrays
