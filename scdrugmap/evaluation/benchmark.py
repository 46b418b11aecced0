"""The public `benchmark`: one question asked as a grid of experiments, each recorded as it ends."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from scdrugmap import errors
from scdrugmap.evaluation.cells.dataset_summary import summaries
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.plan.expand import GivenSettings, expand_grid, placed
from scdrugmap.evaluation.results.run_record import Outcome, Run
from scdrugmap.evaluation.results.store import scores_of
from scdrugmap.evaluation.run.runner import run_grid
from scdrugmap.progress import Progress, reporting
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)


def benchmark(
    datasets: Sequence[str | Path | AnnData],
    models: Sequence[str],
    strategies: Sequence[str] = ("freeze",),
    protocol: str = "pooled",
    split_by: str = "cell",
    shots: Sequence[int] = (0,),
    heads: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    workers: str = "1",
    progress: Progress = False,
    cache: Path | None = None,
    *,
    facet: str = "all",
    device: str = "auto",
    settings: Settings | None = None,
    remarks: Mapping[str, str] | None = None,
    train: Sequence[str] = (),
    options: GivenSettings | None = None,
    knobs: GivenSettings | None = None,
    weights: Mapping[str, str | Path] | None = None,
) -> pl.DataFrame:
    """Run model x strategy x head x shots on labelled data and return the scores, columns as `results.SCORES`.

    Parameters
    ----------
    datasets
        Catalogue keys, paths of files, or AnnData with obs `response`, `dataset` and `sample`.
    models
        Keys of `MODELS`, or "constant". The baselines are constant, hvg and hvg-pca.
    protocol, split_by
        "pooled" by "cell", "sample", "patient_or_line", "dataset" or "study"; "cross-data" by "dataset" or "study".
    shots
        Labelled target cells a class that training sees, for "cross-data"; 0 is zero-shot.
    heads
        Keys of `HEADS`; None takes "mlp" for models and each baseline's own.
    folds, seed
        k of the pooled k-fold, and the seed of splits and heads.
    workers
        "1", a number of processes, or the address of a Dask scheduler.
    cache
        Folder of embeddings and results in place of the settings' cache.
    facet
        Group the data sets by "tissue", "cancer_type", "drug_type" or "regimen"; "all" pools all that are given.
    remarks
        Sentences about data sets, by name, for the records' warnings.
    train
        Names of the data sets that train while every other one is tested (cross-data); none: leave one out.
    options, knobs
        Options of training by strategy or head, {"lora": {"epochs": 5}}; settings of models, {"scgpt": {...}}.
    weights
        Folders, or Hub ids, by model: {"scgpt": "/downloads/scGPT_human"}; others are found as `load_model` finds them.

    Every experiment is recorded in the cache as it ends, and what is recorded as done is not run again. One that cannot
    be done is recorded as failed, with its reason, and the others go on; where none can, the first reason is raised.
    """
    settings = settings or Settings.from_env()
    settings = dataclasses.replace(settings, cache=Path(cache)) if cache else settings
    design = {"protocol": protocol, "split_by": split_by, "facet": facet, "folds": folds, "seed": seed}
    question = Experiment("", "", (), train=tuple(train), **design)  # type: ignore[arg-type]
    known = summaries(datasets, settings)
    given = placed(weights or {}, models)
    experiments = expand_grid(
        question, known, models, heads, strategies, shots, device, knobs=knobs, options=options, weights=given
    )
    with reporting(progress, len(experiments), "experiment") as tell:
        how = {"workers": workers, "device": device, "remarks": remarks, "weights": given}
        done = run_grid(experiments, known, settings, ended=lambda run, new: tell(1), **how)  # type: ignore[arg-type]
    runs = [done[experiment.run_id] for experiment in experiments]
    _say_what_failed(runs)
    return scores_of(runs)


def _say_what_failed(runs: Sequence[Run]) -> None:
    failed = [run for run in runs if run.outcome.state == "failed"]
    for run in failed:
        experiment = run.experiment
        log.warning(
            "%s + %s on %s: %s", experiment.model, experiment.head, " + ".join(experiment.datasets), run.outcome.reason
        )
    if failed and len(failed) == len(runs):
        outcome = failed[0].outcome
        if is_bug(outcome):
            message = f"{outcome.error}: {outcome.reason}"
            raise RuntimeError(message)
        raise getattr(errors, outcome.error)(outcome.reason, outcome.remedy)


def is_bug(outcome: Outcome) -> bool:
    """Tell whether a failed experiment is ours to mend rather than the user's."""
    return outcome.state == "failed" and not hasattr(errors, outcome.error)
