"""Where results lie: runs and predictions written once, and the table of scores that is derived from the runs.

runs/<run_id>.json             the record
predictions/<run_id>.parquet   cell, dataset, sample, split, label, p_resistant: every metric can be recomputed
scores.parquet                 one row a run, fold and metric; rebuilt byte-equal from the runs
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from scdrugmap import files
from scdrugmap.data.labels import SIMULATED
from scdrugmap.errors import UnknownName
from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.evaluation.results.reported import reported
from scdrugmap.evaluation.results.run_record import FoldScores, Run
from scdrugmap.settings import Settings

SCORES: dict[str, Any] = {
    "run_id": pl.String,
    "model": pl.String,
    "strategy": pl.String,
    "shots": pl.Int64,  # null: pooled, all labelled cells of the training side
    "head": pl.String,
    "protocol": pl.String,
    "split_by": pl.String,
    "facet": pl.String,
    "facet_value": pl.String,
    "train": pl.List(pl.String),  # data sets
    "test": pl.List(pl.String),
    "fold": pl.String,  # "all" (out of fold), "dataset:<name>" (out of fold, one data set) or the fold's name
    "seed": pl.Int64,
    "metric": pl.String,
    "value": pl.Float64,  # null where the cells do not define the metric
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n": pl.Int64,  # scored cells
    "prevalence": pl.Float64,  # share of sensitive cells among them
    "source": pl.String,  # "measured" or "reported"
    "simulated": pl.Boolean,  # a data set that trained or was tested is of simulated cells (`Run.is_simulated`)
    "variant": pl.String,  # what sets model and training apart: settings, options, weights (`Experiment.variant`)
    "design": pl.String,  # what sets the question apart: folds, reserve, content (`Experiment.design`)
}
PREDICTIONS = {
    "cell": pl.String,
    "dataset": pl.String,
    "sample": pl.String,
    "split": pl.String,  # the fold that the cell was tested in
    "label": pl.String,
    "p_resistant": pl.Float32,
}
_SCHEMA_1_SEPARATOR = "+"  # between the data sets of a side, until 2026-11-27
_RUN_ID = re.compile(r"[0-9a-f]{16}")


def write_run(root: Path, run: Run, predictions: pl.DataFrame | None = None) -> bool:
    """Write a run and its predictions below `root`; return False where the run is done already and stays as it was.

    Predictions go first, so that a record that is there always has them. A failed record gives way to a later attempt.
    """
    path = root / "runs" / f"{run.run_id}.json"
    if path.is_file() and Run.from_json(path.read_text()).outcome.state == "done":
        return False
    if predictions is not None:
        table = predictions.select(list(PREDICTIONS)).cast(PREDICTIONS)  # type: ignore[arg-type]
        files.write(root / "predictions" / f"{run.run_id}.parquet", _parquet(table))
    files.write(path, run.to_json())
    return True


def runs(root: Path) -> Iterator[Run]:
    """Yield the runs below `root`, ordered by run_id."""
    for path in sorted((root / "runs").glob("*.json")):
        yield Run.from_json(path.read_text())


def build_scores(root: Path) -> pl.DataFrame:
    """Return the table of scores derived from the runs below `root`, always in the same order."""
    return scores_of(runs(root))


def scores_of(of: Iterable[Run]) -> pl.DataFrame:
    """Return the scores of some runs, in their order; a failed run has none."""
    rows = [row for run in of for part in run.outcome.parts if not part.reason for row in _rows(run, part)]
    return pl.DataFrame(rows, schema=SCORES, orient="row")


def write_scores(root: Path) -> pl.DataFrame:
    """Derive the table of scores, write it to `root`/scores.parquet, and return it."""
    scores = build_scores(root)
    files.write(root / "scores.parquet", _parquet(scores))
    return scores


def read_scores(settings: Settings | None = None) -> pl.DataFrame:
    """Return all scores that this machine knows: precomputed, run here, and reported by the paper (column `source`)."""
    measured = pl.DataFrame(schema=SCORES)
    for root in _roots(settings):  # a run that lies in both counts once, as the first has it
        measured = pl.concat([measured, _scores_below(root).join(measured, on="run_id", how="anti")])
    return pl.concat([measured, reported().select(list(SCORES))])


def read_run(run_id: str, settings: Settings | None = None) -> Run:
    """Return the record of a run; `UnknownName` where there is none."""
    return Run.from_json(_find("runs", run_id, ".json", settings).read_text())


def find_done(run_id: str, settings: Settings | None = None) -> Run | None:
    """Return the record of a run that is done, precomputed or run here; None where it is still to do."""
    for root in _roots(settings):
        path = root / "runs" / f"{run_id}.json"
        run = Run.from_json(path.read_text()) if path.is_file() else None
        if run and run.outcome.state == "done":
            return run
    return None


def read_predictions(run_id: str, settings: Settings | None = None) -> pl.DataFrame:
    """Return the out-of-fold predictions of a run, one row a scored cell, columns as `PREDICTIONS`."""
    return pl.read_parquet(_find("predictions", run_id, ".parquet", settings))


def read_runs(settings: Settings | None = None) -> pl.DataFrame:
    """Return one row a run, failed ones included: what was asked, its state and reason, warnings, date and seconds."""
    by_id = {run.run_id: run for root in reversed(_roots(settings)) for run in runs(root)}
    return pl.DataFrame([_summary(run) for run in by_id.values()], schema=_SUMMARY, orient="row").sort("run_id")


_SUMMARY: dict[str, Any] = {
    **{key: SCORES[key] for key in ("run_id", "model", "strategy", "shots", "head", "protocol", "split_by")},
    "facet": pl.String,
    "facet_value": pl.String,
    "datasets": pl.List(pl.String),
    "train": pl.List(pl.String),  # those that train for the others; empty where each is left out in turn
    "seed": pl.Int64,
    "variant": pl.String,
    "design": pl.String,
    "state": pl.String,  # "done" or "failed"
    "reason": pl.String,
    "remedy": pl.String,
    "warnings": pl.List(pl.String),
    "n_cells": pl.Int64,
    "n_samples": pl.Int64,
    "duplicates_removed": pl.Int64,
    "date": pl.String,
    "seconds": pl.Float64,
    "unscored": pl.List(pl.Struct({"test": pl.String, "reason": pl.String})),  # data sets that a done run left out
    "simulated": pl.Boolean,  # a data set of the run is of simulated cells
}


def _summary(run: Run) -> tuple[object, ...]:
    experiment, outcome = run.experiment, run.outcome
    unscored = [{"test": name, "reason": part.reason} for part in outcome.parts if part.reason for name in part.test]
    return (
        *(run.run_id, experiment.model, experiment.strategy, experiment.shots, experiment.head),
        *(experiment.protocol, experiment.split_by, experiment.facet, experiment.facet_value),
        *(list(experiment.datasets), list(experiment.train), experiment.seed),
        *(experiment.variant, experiment.design),
        *(outcome.state, outcome.reason, outcome.remedy, list(outcome.warnings)),
        *(outcome.n_cells, outcome.n_samples, outcome.duplicates_removed),
        *(run.environment.date, run.environment.seconds),
        unscored,
        run.is_simulated(experiment.datasets),
    )


def _rows(run: Run, part: FoldScores) -> Iterator[tuple[object, ...]]:
    experiment = run.experiment
    before = (run.run_id, experiment.model, experiment.strategy, experiment.shots, experiment.head)
    view = (experiment.protocol, experiment.split_by, experiment.facet, experiment.facet_value)
    where = (list(part.train), list(part.test), part.fold, experiment.seed)
    more = ("measured", run.is_simulated((*part.train, *part.test)), experiment.variant, experiment.design)
    for metric in METRICS:
        measured = (part.values.get(metric), part.low.get(metric), part.high.get(metric))
        yield (*before, *view, *where, metric, *measured, part.n, part.prevalence, *more)


def _scores_below(root: Path) -> pl.DataFrame:
    """Read scores.parquet; derive it anew where a run is younger, as after a grid that was interrupted.

    So is a table of an earlier version, whose columns or their types differ; where it came without its runs, it is
    read as far as it says (`_converted`).
    """
    table, records = root / "scores.parquet", root / "runs"
    if not table.is_file() or (records.is_dir() and records.stat().st_mtime > table.stat().st_mtime):
        return build_scores(root)
    scores = pl.read_parquet(table)
    if list(scores.schema.items()) == list(SCORES.items()):
        return scores
    return build_scores(root) if records.is_dir() else _converted(scores)


def _converted(scores: pl.DataFrame) -> pl.DataFrame:
    """Return a table of schema 1, data sets joined by a plus sign, as one of this version; empty where it lacks more.

    This is a guess where the records are missing: a name that holds a plus sign comes apart, and cells are simulated
    where a data set has a name that our simulator gives.
    """
    if not set(SCORES) - {"simulated"} <= set(scores.columns):
        return pl.DataFrame(schema=SCORES)
    lists = scores.with_columns(pl.col("train", "test").str.split(_SCHEMA_1_SEPARATOR))
    names = pl.concat_list("train", "test").list.eval(pl.element().str.starts_with(SIMULATED))
    lists = lists.with_columns(simulated=names.list.any().fill_null(False))
    return lists.select(pl.col(name).cast(kind) for name, kind in SCORES.items())


def _roots(settings: Settings | None) -> list[Path]:
    settings = settings or Settings.from_env()
    return list(dict.fromkeys((settings.precomputed, settings.results)))


def _find(folder: str, run_id: str, suffix: str, settings: Settings | None) -> Path:
    if _RUN_ID.fullmatch(run_id):  # a run_id comes from a URL: nothing else may become a path
        for root in _roots(settings):
            path = root / folder / f"{run_id}{suffix}"
            if path.is_file():
                return path
    message = f"There is no run called '{run_id[:40]}' with {folder} on this machine."
    raise UnknownName(message, "The Models page and scdrugmap benchmark status list the runs that there are.")


def _parquet(table: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    table.write_parquet(file, compression="zstd", statistics=True)
    return file.getvalue()
