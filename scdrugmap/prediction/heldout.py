"""How a reference does on studies that it has not seen: the honest number on its card.

Each study is held out in turn: a head fitted on the others scores it. With a single study its data sets, samples or,
at worst, cells are held out instead, and the card says which. A baseline whose genes and loadings are fitted is
refitted on each training side, so that the held-out study teaches it nothing.

The headline is AUROC over pairs of cells of the *same* held-out study: pairs across studies would reward telling
studies apart. Studies of one class add to the other scores and to calibration, not to this one.
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
from sklearn.model_selection import StratifiedKFold

from scdrugmap.data.labels import RESISTANT
from scdrugmap.errors import LabelsMissing
from scdrugmap.evaluation.heads import make_head
from scdrugmap.evaluation.metrics import bootstrap, constants, score
from scdrugmap.models.encoder import Encoder
from scdrugmap.prediction.sampling import balanced_sample

HEADLINE = "auroc_within"
UNITS = ("study", "dataset", "sample")
_FOLDS = 5  # by cell, where nothing coarser can be held out


@dataclass(frozen=True)
class Folds:
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
    obs: pd.DataFrame,
    embedding: NDArray[np.float32],
    encoder: Encoder,
    head: str,
    seed: int,
) -> Folds:
    """Score each unit by a head that has not seen it; the coarsest unit that leaves both classes to learn from.

    `obs` and `embedding`, (n_cells, D), stand for the cells of `parts` one after another.
    """
    labels = obs["response"].to_numpy()
    for unit in (*UNITS, "cell"):
        unit_of = _units(obs, labels, unit, seed)
        raw = np.full(len(obs), np.nan, dtype=np.float32)
        for name in np.unique(unit_of):
            test = unit_of == name
            if len(set(labels[~test])) == 2:
                raw[test] = _score_one(parts, obs, embedding, encoder, head, seed, test)
        scored = np.isfinite(raw)
        if len(set(labels[scored])) == 2:
            return Folds(unit, unit_of, raw)
    raise LabelsMissing("There are too few labelled cells to hold any out.", "Add labelled cells of both classes.")


def measure(folds: Folds, p_held_out: ArrayLike, obs: pd.DataFrame) -> dict[str, Any]:
    """Return the scores of the held-out cells for the card: all together, by unit, and a verdict.

    `p_held_out`, (n scored cells,), is P(resistant) calibrated by what was fitted on the other units.
    """
    scored = folds.scored
    labels = obs["response"].to_numpy()[scored]
    samples = (obs["study"] + "/" + obs["sample"]).to_numpy(dtype=str)[scored]
    units = folds.unit_of[scored]
    p = np.asarray(p_held_out, dtype=np.float64)
    overall = _scores(labels, p, samples, units)
    headline = {"metric": HEADLINE, **overall["scores"].get(HEADLINE, _EMPTY)}
    return {
        "protocol": f"leave-one-{folds.unit}-out" if folds.unit != "cell" else f"{_FOLDS}-fold by cell (leaks)",
        "unit": folds.unit,
        "n_units": len(np.unique(units)),
        "not_held_out": sorted(set(folds.unit_of[~scored].tolist())),
        "headline": headline,
        "verdict": _verdict(headline, folds.unit),
        **overall,
        "by_unit": [
            {"name": str(name), **_scores(labels[units == name], p[units == name], samples[units == name], None)}
            for name in np.unique(units)
            if folds.unit != "cell"
        ],
    }


_EMPTY: dict[str, float | None] = {"value": None, "low": None, "high": None, "constant": None}


def _scores(
    labels: NDArray[np.object_], p: NDArray[np.float64], samples: NDArray[np.str_], folds: NDArray[np.str_] | None
) -> dict[str, Any]:
    prevalence = float(np.mean(labels != RESISTANT))
    drawn, constant = bootstrap(labels, p, samples, folds=folds), constants(prevalence)
    scores = {
        key: {"value": value, "low": low, "high": high, "constant": constant[key]}
        for key, value in score(labels, p, folds=folds).items()
        if np.isfinite([value, *(limits := drawn.interval[key])]).all()
        for low, high in [limits]
    }
    return {
        "n_cells": len(labels),
        "prevalence": prevalence,
        "interval": {"level": drawn.level, "unit": drawn.unit, "n_units": drawn.n_units},
        "scores": scores,
    }


def _verdict(headline: dict[str, Any], unit: str) -> str:
    if headline["value"] is None:
        return f"No held-out {unit} has both classes: how well it ranks cells is unknown."
    if headline["low"] > headline["constant"]:
        return f"Better than chance on {unit}s that it had not seen."
    if headline["high"] < headline["constant"]:
        return f"Worse than chance on {unit}s that it had not seen: its order of cells does not carry over."
    return f"Not distinguishable from chance on {unit}s that it had not seen."


def _units(obs: pd.DataFrame, labels: NDArray[np.object_], unit: str, seed: int) -> NDArray[np.str_]:
    if unit == "sample":
        return (obs["study"] + "/" + obs["sample"]).to_numpy(dtype=str)
    if unit != "cell":
        return obs[unit].to_numpy(dtype=str)
    smallest = min(int((labels == label).sum()) for label in set(labels))
    folds = np.zeros(len(labels), dtype=int)
    if smallest >= 2:
        splitter = StratifiedKFold(min(_FOLDS, smallest), shuffle=True, random_state=seed)
        for number, (_, test) in enumerate(splitter.split(np.zeros(len(labels)), labels.astype(str))):
            folds[test] = number
    return folds.astype(str)


def _score_one(
    parts: Sequence[AnnData],
    obs: pd.DataFrame,
    embedding: NDArray[np.float32],
    encoder: Encoder,
    head: str,
    seed: int,
    test: NDArray[np.bool_],
) -> NDArray[np.float32]:
    if encoder.card.fitted:
        embedding = _refitted(parts, encoder, ~test)
    labels, studies = obs["response"].to_numpy(), obs["study"].to_numpy(dtype=str)
    train = np.flatnonzero(~test)
    chosen = train[balanced_sample(labels[train] == RESISTANT, studies[train], seed=seed)]
    return make_head(head, seed=seed).fit(embedding[chosen], labels[chosen]).predict_proba(embedding[test])


def _refitted(parts: Sequence[AnnData], encoder: Encoder, train: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Embed all cells with genes and loadings fitted on the training cells only."""
    ends = np.cumsum([part.n_obs for part in parts])
    sides = [part[train[end - part.n_obs : end]] for part, end in zip(parts, ends, strict=True)]
    taught = [side for side in sides if side.n_obs]
    merged = (
        ad.concat([AnnData(side.X, var=side.var[[]]) for side in taught], join="inner")
        if len(taught) > 1
        else taught[0]
    )
    fresh = encoder.fit(merged.copy())
    return np.concatenate([fresh.embed(part) for part in parts])
