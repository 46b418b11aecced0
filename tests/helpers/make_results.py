"""Made-up runs of simulated data sets, written as real ones are: for the tests of results and of the pages."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import polars as pl

from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.run_record import Outcome, Run, environment
from scdrugmap.evaluation.results.score_predictions import score_all, score_fold
from scdrugmap.evaluation.results.store import write_run, write_scores

# model, head -> how far its scores tell the classes apart, split by cell and split by sample
EFFECTS = {
    ("constant", "constant"): (0.0, 0.0),
    ("hvg", "logistic"): (1.5, 0.7),
    ("hvg-pca", "mlp"): (1.2, 0.4),
    ("hvg", "gradient-boosting"): (1.4, 0.6),
    ("scgpt-mini", "mlp"): (1.6, 0.5),
    ("scgpt-mini", "logistic"): (1.7, 0.8),
}
DRAWS = 50  # of the bootstrap: quick, not exact
GROUPS = {"simulated-a": ("simulated-a",), "simulated-b": ("simulated-b",), "Cell line": ("simulated-a", "simulated-b")}


def make_predictions(datasets: tuple[str, ...], effect: float, seed: int = 0, n: int = 120) -> pl.DataFrame:
    rng = np.random.default_rng([seed, len(datasets)])
    sample = np.repeat(np.arange(8 * len(datasets)), n // 8)
    resistant = sample % 2 == 1
    logit = effect * np.where(resistant, 1, -1) + (rng.normal(size=len(sample)) if effect else 0)
    return pl.DataFrame(
        {
            "cell": [f"cell-{i}" for i in range(len(sample))],
            "dataset": np.repeat(datasets, n).tolist(),
            "sample": [f"sample-{i}" for i in sample],
            "split": [f"{i // 2 % 4}" for i in sample],
            "label": np.where(resistant, "resistant", "sensitive").tolist(),
            "p_resistant": (1 / (1 + np.exp(-logit))).astype(np.float32),
        }
    )


def make_run(experiment: Experiment, effect: float) -> tuple[Run, pl.DataFrame]:
    rows = make_predictions(experiment.datasets, effect, experiment.seed)
    folds = [score_fold(rows.filter(split=name), name, experiment.datasets, n_train=90) for name in "0123"]
    outcome = Outcome(
        "done", (*score_all(rows, experiment.datasets, draws=DRAWS), *folds), n_cells=len(rows), value_type="counts"
    )
    return Run(experiment, outcome, make_environment()), rows


def make_failure() -> Run:
    experiment = Experiment("hvg", "logistic", ("simulated-b",), split_by="sample", facet_value="confounded")
    reason = "confounded (label = sample): 'simulated-b' has one sensitive sample only."
    outcome = Outcome("failed", error="LabelsMissing", reason=reason, remedy="Split by dataset or study.")
    return Run(experiment, outcome, make_environment())


def make_environment():
    return environment(device="cpu", precision="float32", weights="", data={}, seconds=1.5)


def make_results(root: Path) -> None:
    for value, datasets in GROUPS.items():
        facet = "tissue" if len(datasets) > 1 else "all"
        for (model, head), effects in EFFECTS.items():
            for split_by, effect in zip(("cell", "sample"), effects, strict=True):
                experiment = Experiment(
                    model, head, datasets, split_by=split_by, facet=facet, facet_value=value, folds=4
                )
                write_run(root, *make_run(experiment, effect))
    write_run(root, make_failure())
    write_scores(root)


# ---- cross-data: each trains for the others, each left out in turn, and a few labelled target cells -----------------
SETS = ("simulated-a", "simulated-b", "simulated-c", "simulated-d")
REAL = tuple(name.replace("simulated", "melanoma") for name in SETS)  # made up as well, but counted as measured
CARRIES_OVER = {("hvg", "logistic"): 1.6, ("scgpt-mini", "mlp"): 1.1}
FEWER = 20  # draws: these runs have many intervals
SHOTS = (0, 50)


def make_crossed(experiment: Experiment, effect: float) -> tuple[Run, pl.DataFrame]:
    """A cross-data run: every data set that does not only train is a fold of its own, with an interval."""
    tables, parts = [], []
    for name in (one for one in experiment.datasets if one not in experiment.train):
        train = experiment.train or tuple(other for other in experiment.datasets if other != name)
        luck = zlib.crc32("+".join((*train, name)).encode()) % 7
        part = make_predictions((name,), effect - 0.3 * luck, seed=experiment.seed + luck)
        rows = part.with_columns(split=pl.lit(name))
        tables.append(rows)
        parts.append(score_fold(rows, name, train, n_train=120 * len(train), draws=FEWER))
    rows = pl.concat(tables)
    whole = score_fold(rows, "all", {name for part in parts for name in part.train}, draws=FEWER)
    alone = [dataclasses.replace(part, fold=f"dataset:{part.fold}", n_train=0) for part in parts]
    outcome = Outcome("done", (whole, *alone, *parts), n_cells=len(rows), value_type="counts")
    return Run(experiment, outcome, make_environment()), rows


def make_transfer(root: Path, sets: tuple[str, ...] = SETS) -> None:
    """Write the pairs of a matrix, one of which could not be run, leave-one-out runs and few-shot runs."""
    for (model, head), effect in CARRIES_OVER.items():
        question = {"protocol": "cross-data", "split_by": "dataset"}
        for train in sets[:-1]:
            asked = Experiment(model, head, sets, train=(train,), shots=0, **question)
            write_run(root, *make_crossed(asked, effect))
        reason = f"'{sets[-1]}' has resistant cells only: one class cannot be learnt."
        asked = Experiment(model, head, sets, train=sets[-1:], shots=0, **question)
        failed = Outcome("failed", error="LabelsMissing", reason=reason, remedy="Add data sets of both classes.")
        write_run(root, Run(asked, failed, make_environment()))
        for shots in SHOTS:
            for seed in (0, 1):
                asked = Experiment(model, head, sets, shots=shots, seed=seed, reserve=50, **question)
                write_run(root, *make_crossed(asked, effect + 0.2 * np.log1p(shots)))
        for name in sets:
            asked = Experiment(model, head, (name,), split_by="sample", facet_value=name, folds=4)
            write_run(root, *make_run(asked, effect + 0.3))
    write_scores(root)
