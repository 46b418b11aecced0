"""How a reference does on studies that it has not seen: the honest number on its card.

Each study is held out in turn: a head fitted on the others scores it. With a single study its data sets, samples or,
at worst, cells are held out instead, and the card says which. The splits are those of the evaluation. A baseline whose
genes and loadings are fitted is refitted on each training side, so that the held-out study teaches it nothing.

The headline is AUROC over pairs of cells of the *same* held-out study: pairs across studies would reward telling
studies apart. Only studies in which both classes stand in two patients or lines or more enter it: elsewhere label and
line are one thing, and a good score may mean that lines were told apart. The others are listed, marked confounded.
Intervals are bootstrapped over patients and lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from scdrugmap.data.labels import RESISTANT
from scdrugmap.evaluation.cells.cell_table import CellMetadata
from scdrugmap.evaluation.metrics.bootstrap import bootstrap
from scdrugmap.evaluation.metrics.metrics import constants, score
from scdrugmap.evaluation.splits.protocols import Split, leave_one_out, splits
from scdrugmap.evaluation.strategies.heads import make_head
from scdrugmap.models.checkpoints.baseline import refit
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.prediction.reference.sampling import balanced_sample

HEADLINE = "auroc_within"
_UNITS = ("study", "dataset", "sample")
_UNSEEN = {
    "study": "studies that it had not seen",
    "dataset": "data sets of the same study",
    "sample": "samples of the same data set",
    "cell": "cells of the same samples (this leaks)",
}
_FOLDS = 5  # by cell, where nothing coarser can be held out


@dataclass(frozen=True)
class OutOfFoldScores:
    """Out-of-fold scores of every cell that could be held out."""

    unit: str  # what was held out: study, dataset, sample or cell
    unit_of: NDArray[np.str_]  # (n_cells,)
    raw: NDArray[np.float32]  # (n_cells,) the held-out head's score; NaN where the unit could not be held out

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which cells have a score, (n_cells,)."""
        return np.isfinite(self.raw)


def score_held_out(
    parts: Sequence[AnnData],
    cells: CellMetadata,
    embedding: NDArray[np.float32],
    encoder: Encoder,
    head: str,
    seed: int,
) -> OutOfFoldScores:
    """Score each unit by a head that has not seen it; the coarsest unit that leaves both classes to learn from.

    `cells`, distinct ones, and `embedding`, (n_cells, D), stand for the cells of `parts` one after another. Raises
    `LabelsMissing` where a class has one cell only.
    """
    for unit in (*_UNITS, "cell"):
        folds = list(leave_one_out(cells, unit)) if unit in _UNITS else splits(cells, "pooled", "cell", _FOLDS, seed)
        unit_of = np.full(len(cells), "", dtype=object)
        raw = np.full(len(cells), np.nan, dtype=np.float32)
        for split in folds:
            unit_of[split.test] = split.name
            if not split.reason:
                raw[split.test] = _score_one(parts, cells, embedding, encoder, head, seed, split)
        if len(set(cells.label[np.isfinite(raw)])) == 2:
            break
    return OutOfFoldScores(unit, unit_of.astype(str), raw)


def measure(folds: OutOfFoldScores, p_held_out: ArrayLike, obs: pd.DataFrame) -> dict[str, Any]:
    """Return the scores of the held-out cells for the card: the headline, all together, by unit, and a verdict.

    `p_held_out`, (n scored cells,), is P(resistant) calibrated by what was fitted on the other units.
    """
    scored = folds.scored
    cells = obs[scored].assign(unit=folds.unit_of[scored], p=np.asarray(p_held_out, dtype=np.float64))
    cells["source"] = cells["study"] + "/" + cells["patient_or_line"]
    by_unit = [_of_unit(str(name), part) for name, part in cells.groupby("unit")] if folds.unit != "cell" else []
    telling = [row["name"] for row in by_unit if row["n_classes"] == 2 and not row["confounded"]]
    shaky = [row["name"] for row in by_unit if row["n_classes"] == 2 and row["confounded"]]
    chosen = cells[cells["unit"].isin(telling or shaky)] if by_unit else cells
    headline = {"metric": HEADLINE, **_scores(chosen)["scores"].get(HEADLINE, _EMPTY)} if len(chosen) else _EMPTY
    return {
        "protocol": f"leave-one-{folds.unit}-out" if folds.unit != "cell" else f"{_FOLDS}-fold by cell (leaks)",
        "unit": folds.unit,
        "n_units": cells["unit"].nunique(),
        "not_held_out": sorted(set(folds.unit_of[~scored].tolist())),
        "headline": {"metric": HEADLINE, **headline, "units": telling or shaky, "n_cells": len(chosen)},
        "verdict": _verdict(headline, folds.unit, confounded=not telling),
        "by_unit": by_unit,
        **_scores(cells),
    }


_EMPTY: dict[str, Any] = {"value": None, "low": None, "high": None, "constant": None}


def _of_unit(name: str, cells: pd.DataFrame) -> dict[str, Any]:
    """Score one held-out unit; it is confounded where a class stands in a single patient or line."""
    sources = cells.groupby("response")["source"].nunique()
    return {
        "name": name,
        "n_classes": len(sources),
        "confounded": bool(len(sources) < 2 or sources.min() < 2),
        "patients_or_lines": {str(label): int(count) for label, count in sources.items()},
        **_scores(cells),
    }


def _scores(cells: pd.DataFrame) -> dict[str, Any]:
    """Return every metric that the cells define, with its interval over patients or lines and its constant value."""
    labels, p = cells["response"].to_numpy(dtype=object), cells["p"].to_numpy()
    units = cells["unit"].to_numpy(dtype=str)
    prevalence = float(np.mean(labels != RESISTANT))
    drawn = bootstrap(labels, p, cells["source"].to_numpy(dtype=str), folds=units)
    constant, scores = constants(prevalence), {}
    for key, value in score(labels, p, folds=units).items():
        low, high = drawn.interval[key]
        if np.isfinite([value, low, high]).all():
            scores[key] = {"value": value, "low": low, "high": high, "constant": constant[key]}
    unit = "patient or line" if drawn.unit == "sample" else drawn.unit
    return {
        "n_cells": len(labels),
        "prevalence": prevalence,
        "interval": {"level": drawn.level, "unit": unit, "n_units": drawn.n_units},
        "scores": scores,
    }


def _verdict(headline: dict[str, Any], unit: str, *, confounded: bool) -> str:
    unseen = _UNSEEN[unit]
    if headline["value"] is None:
        return f"Unknown: none of the {unseen} has both classes."
    if headline["low"] > headline["constant"]:
        verdict = f"Better than chance on {unseen}"
    elif headline["high"] < headline["constant"]:
        verdict = f"Worse than chance on {unseen}: its order of cells does not carry over"
    else:
        verdict = f"Not distinguishable from chance on {unseen}"
    caveat = ", but there a class is a single patient or line: this may tell lines apart, not responses"
    return f"{verdict}{caveat if confounded else ''}."


def _score_one(
    parts: Sequence[AnnData],
    cells: CellMetadata,
    embedding: NDArray[np.float32],
    encoder: Encoder,
    head: str,
    seed: int,
    split: Split,
) -> NDArray[np.float32]:
    if encoder.card.fitted:
        embedding = _refitted(parts, encoder, np.isin(np.arange(len(cells)), split.train))
    labels, train = cells.label, split.train
    chosen = train[balanced_sample(labels[train] == RESISTANT, cells.study[train], seed=seed)]
    return make_head(head, seed=seed).fit(embedding[chosen], labels[chosen]).predict_proba(embedding[split.test])


def _refitted(parts: Sequence[AnnData], encoder: Encoder, train: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Embed all cells with genes and loadings fitted on the training cells only."""
    ends = np.cumsum([part.n_obs for part in parts])
    sides = [part[train[end - part.n_obs : end]] for part, end in zip(parts, ends, strict=True)]
    taught = [side for side in sides if side.n_obs]
    bare = {str(number): AnnData(side.X, var=side.var[[]]) for number, side in enumerate(taught)}
    fresh = refit(encoder, ad.concat(bare, join="inner", index_unique="-"))
    return np.concatenate([fresh.embed(part) for part in parts])
