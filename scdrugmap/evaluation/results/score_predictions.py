"""From predictions to scores: the only way in which a number of ours comes about, so that anyone can repeat it.

Predictions are rows of `results.PREDICTIONS`: cell, dataset, sample, split (the fold it was tested in), label and
P(resistant) of each scored cell.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from scdrugmap.data.labels import SENSITIVE
from scdrugmap.evaluation.metrics.bootstrap import DRAWS, bootstrap
from scdrugmap.evaluation.metrics.metrics import constants, score
from scdrugmap.evaluation.results.run_record import FoldScores, defined


def score_fold(rows: pl.DataFrame, fold: str, train: Iterable[str], *, n_train: int = 0, draws: int = 0) -> FoldScores:
    """Return the scores of some predictions: every metric, its constant value and, with `draws`, its interval.

    `rows` may be one fold or several; `train` names the data sets that training saw, `n_train` counts its cells.
    """
    labels, p = rows["label"].to_numpy(), rows["p_resistant"].to_numpy()
    folds = rows["split"].to_numpy()
    prevalence = float((rows["label"] == SENSITIVE).mean())  # type: ignore[arg-type]
    drawn = bootstrap(labels, p, rows["sample"].to_numpy(), folds=folds, draws=draws) if draws else None
    bounds = drawn.interval if drawn else {}
    return FoldScores(
        fold=fold,
        train=tuple(sorted(train)),
        test=tuple(sorted(rows["dataset"].unique())),
        n_train=n_train,
        n=len(rows),
        prevalence=prevalence,
        values=defined(score(labels, p, folds=folds)),
        constants=constants(prevalence),
        low=defined({key: low for key, (low, _) in bounds.items()}),
        high=defined({key: high for key, (_, high) in bounds.items()}),
        unit=drawn.unit if drawn else "",
        n_units=drawn.n_units if drawn else 0,
        draws=draws,
        undefined_draws=drawn.undefined if drawn else {},
    )


def score_all(rows: pl.DataFrame, train: Iterable[str], *, draws: int = DRAWS) -> list[FoldScores]:
    """Return the out-of-fold scores: all cells together and, where there are several, each data set by itself.

    Data sets differ in their share of sensitive cells; a score over several can be had by telling them apart, so that
    each one's own stands beside it.
    """
    train = list(train)
    parts = [score_fold(rows, "all", train, draws=draws)]
    names = sorted(rows["dataset"].unique())
    if len(names) > 1:
        alone = (rows.filter(pl.col("dataset") == name) for name in names)
        parts += [
            score_fold(part, f"dataset:{name}", train, draws=draws) for name, part in zip(names, alone, strict=True)
        ]
    return parts
