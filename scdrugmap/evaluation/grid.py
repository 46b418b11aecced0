"""The public `benchmark`: one question asked as a grid of experiments, each recorded as it ends."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from scdrugmap import errors
from scdrugmap.evaluation import parallel
from scdrugmap.evaluation.evaluate import evaluate
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.material import Source, load_sources, material_of
from scdrugmap.evaluation.plan import plan
from scdrugmap.evaluation.records import Run
from scdrugmap.evaluation.results import find_done, scores_of, write_run, write_scores
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

    Every experiment is recorded in the cache as it ends, and what is recorded as done is not run again. One that cannot
    be done is recorded as failed, with its reason, and the others go on; where none can, the first reason is raised.
    """
    settings = settings or Settings.from_env()
    settings = dataclasses.replace(settings, cache=Path(cache)) if cache else settings
    question = Experiment("", "", (), protocol=protocol, split_by=split_by, facet=facet, folds=folds, seed=seed)
    sources = load_sources(datasets, settings)
    experiments = plan(question, sources, models, heads, strategies, shots, device)
    tasks = [Task.of(one, sources, settings, device, remarks) for one in experiments]
    done: dict[str, Run] = {}
    with reporting(progress, len(tasks), "experiment") as tell:
        for run in parallel.run(perform, tasks, workers=workers):
            done[run.run_id] = run
            tell(1)
    write_scores(settings.results)
    runs = [done[one.run_id] for one in experiments]
    _say_what_failed(runs)
    return scores_of(runs)


@dataclass(frozen=True)
class Task:
    """One experiment and what a worker needs for it: small where data sets are named rather than given."""

    experiment: Experiment
    datasets: tuple[str | Path | AnnData, ...]
    settings: Settings
    device: str
    remarks: Mapping[str, str]

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        sources: Iterable[Source],
        settings: Settings,
        device: str,
        remarks: Mapping[str, str] | None,
    ) -> Task:
        """Name the data sets of one experiment by where they came from."""
        wanted = {id(one.origin): one.origin for one in sources if one.name in experiment.datasets}
        return cls(experiment, tuple(wanted.values()), settings, device, dict(remarks or {}))


def perform(task: Task) -> Run:
    """Do a task, record it, and return the record; one that is recorded as done is only read."""
    run = find_done(task.experiment.run_id, task.settings)
    if run is None:
        run, predictions = evaluate(
            task.experiment,
            material_of(task.experiment.contents, task.datasets, task.settings),
            cache=task.settings.embeddings,
            device=task.device,
            remarks=task.remarks,
        )
        write_run(task.settings.results, run, predictions)
    return run


def _say_what_failed(runs: Sequence[Run]) -> None:
    failed = [run for run in runs if run.outcome.state == "failed"]
    for run in failed:
        asked = run.experiment
        log.warning("%s + %s on %s: %s", asked.model, asked.head, "+".join(asked.datasets), run.outcome.reason)
    if failed and len(failed) == len(runs):
        outcome = failed[0].outcome
        raise getattr(errors, outcome.error)(outcome.reason, outcome.remedy)
