"""Labelled cells that are told as examples: k of each class, drawn by seed, in an order that mixes the classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.data.dedupe import cell_keys, distinct, duplicate_ids
from scdrugmap.data.labels import RESPONSES, SENSITIVE
from scdrugmap.data.load import load_dataset
from scdrugmap.errors import InvalidInput, LabelsMissing
from scdrugmap.prompting.cell_fields import cell_texts
from scdrugmap.prompting.prompt import CellText, Example
from scdrugmap.prompting.settings import PromptSettings

if TYPE_CHECKING:
    from anndata import AnnData

_SHOTS = 5  # of each class, where no number was given


@dataclass(frozen=True)
class Examples:
    """What is told of labelled cells, and what a record may say of them."""

    examples: tuple[Example, ...]
    shots: int  # of each class
    seed: int
    hash: str  # of the cells' genes, values and labels: names play no part
    n_left_out: int  # labelled cells that stand among the cells to judge, and so are not told
    n_shared_samples: int  # of cells that are told and of cells to judge, by their names

    def record(self) -> dict[str, int | str]:
        """Return plain values that name no file, sample or cell."""
        counted = ("shots", "seed", "hash", "n_left_out", "n_shared_samples")
        return {name: getattr(self, name) for name in counted}


def in_order(texts: Sequence[CellText], labels: Sequence[str], seed: int) -> list[Example]:
    """Return labelled cells as examples, in a seeded order."""
    order = np.random.default_rng(seed).permutation(len(texts))
    return [Example(texts[place], str(labels[place])) for place in order]


def check_shots(examples: object, shots: int | None) -> int:
    """Return how many cells of each class are to be told, 0 without examples; raises `InvalidInput` for a slip."""
    if examples is None:
        if shots is not None:
            message = f"{shots!r} shots were asked for, and no labelled cells to take them from."
            raise InvalidInput(message, "Name a file that has labels: --examples labelled.h5ad")
        return 0
    if shots is None:
        return _SHOTS
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        message = f"{shots!r} is no number of examples of each class."
        raise InvalidInput(message, "Give a whole number of at least 1, e.g. --shots 5, or leave the examples out.")
    return shots


def draw_examples(
    source: AnnData | str | Path, shots: int, *, judged: AnnData, settings: PromptSettings, seed: int
) -> Examples:
    """Draw `shots` labelled cells of each class from a file, an AnnData or a data set; fewer shots are among more.

    A labelled cell that stands among the `judged` cells too (`data.dedupe`) is never told: its answer would stand in
    the question. Neither are cells without a gene to name, copies of a cell, and cells whose copies carry both labels.

    Raises `LabelsMissing` without labels, and `InvalidInput` for fewer cells of a class than shots and for values of
    which no text can be made.
    """
    adata = load_dataset(source)
    adata = adata[adata.obs["response"].isin(RESPONSES).to_numpy()].copy()
    if not adata.n_obs:
        message = "The examples have no label: no cell is called sensitive or resistant in obs['response']."
        raise LabelsMissing(message, "Fill obs['response'] with 'sensitive' and 'resistant', or leave --examples out.")
    labels, keys = adata.obs["response"].to_numpy(dtype=str), cell_keys(adata)
    ids, judged_ids = np.split(duplicate_ids([keys, cell_keys(judged)]), [adata.n_obs])
    texts = cell_texts(adata, settings)
    named = np.array([bool(text.genes) for text in texts])
    left_out = named & np.isin(ids, judged_ids)
    free = named & ~left_out & np.isin(np.arange(adata.n_obs), distinct(ids, labels == SENSITIVE)[0])
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    places = [[place for place in order if free[place] and labels[place] == label][:shots] for label in RESPONSES]
    for label, drawn in zip(RESPONSES, places, strict=True):
        if len(drawn) < shots:
            raise _too_few(label, shots, len(drawn), int(left_out[labels == label].sum()))
    chosen = np.concatenate(places)
    examples = in_order([texts[place] for place in chosen], labels[chosen].tolist(), seed)
    shared = _samples(adata[chosen]) & _samples(judged)
    return Examples(
        tuple(examples), shots, seed, _hash(keys.hashes[chosen], labels[chosen]), int(left_out.sum()), len(shared)
    )


def _samples(adata: AnnData) -> set[str]:
    return set(adata.obs["sample"].astype(str)) if "sample" in adata.obs else set()


def _too_few(label: str, shots: int, n: int, left_out: int) -> InvalidInput:
    message = f"{shots} examples of each class are wanted, and there {'is' if n == 1 else 'are'} {n} {label} to draw"
    if left_out:
        message += f"; {left_out} more stand among the cells to judge, and their labels must not be told"
    remedy = "Give a file with more labelled cells that are not to be judged"
    return InvalidInput(f"{message}.", f"{remedy}, or fewer: --shots {n}" if n else f"{remedy}.")


def _hash(hashes: np.ndarray, labels: np.ndarray) -> str:
    lines = sorted(f"{cell.decode()} {label}" for cell, label in zip(hashes.tolist(), labels.tolist(), strict=True))
    return f"sha256:{hashlib.sha256('|'.join(lines).encode()).hexdigest()}"
