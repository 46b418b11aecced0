"""The loop: split, fit, score, record; and the public `benchmark`, which asks it for a grid of experiments."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from scdrugmap import errors
from scdrugmap.evaluation import parallel
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.folds import Folds
from scdrugmap.evaluation.material import Material, Source, load_sources, material_of
from scdrugmap.evaluation.plan import plan
from scdrugmap.evaluation.records import Outcome, Run, environment
from scdrugmap.evaluation.results import find_done, scores_of, write_run, write_scores
from scdrugmap.evaluation.vectors import Vectors, load_encoder, vectors
from scdrugmap.models import MODELS
from scdrugmap.progress import Progress, reporting
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)


def evaluate(
    experiment: Experiment,
    material: Material,
    *,
    cache: Path | None = None,
    device: str = "auto",
    progress: Progress = False,
    remarks: Mapping[str, str] | None = None,
) -> tuple[Run, pl.DataFrame | None]:
    """Do one experiment; return its record and its out-of-fold predictions.

    What data, labels or weights do not allow is no error here but a record with state "failed" and its reason, and
    predictions are None. `cache` is the store of embeddings. `remarks` are sentences about data sets, by name, that go
    into the record's warnings. `Cancelled` passes through.
    """
    start = time.perf_counter()
    said = tuple(f"{name}: {text}" for name, text in (remarks or {}).items() if name in experiment.datasets)
    said += _seen_before(experiment.model, material)
    made: Vectors | None = None
    predictions = None
    try:
        _require_built(experiment)
        folds = Folds.of(experiment, material)
        made = vectors(material, load_encoder(experiment.model, device, experiment.settings), cache, progress)
        outcome, predictions = folds.score(made, said)
    except errors.Cancelled:
        raise
    except errors.ScDrugMapError as error:
        outcome = _failed(error, material, said)
    where = environment(
        device=made.device if made else "",
        precision=made.precision if made else "",
        weights=made.weights if made else "",
        data={source.name: source.fingerprint for source in material.sources},
        seconds=time.perf_counter() - start,
    )
    return Run(experiment, outcome, where), predictions


def _require_built(experiment: Experiment) -> None:
    if experiment.strategy != "freeze":
        message = f"The strategy '{experiment.strategy}' cannot be run by this version."
        raise errors.InvalidInput(message, "Use strategy 'freeze'.")
    if experiment.shots:
        message = f"This version cannot train on {experiment.shots} labelled target cells a class."
        raise errors.InvalidInput(message, "Use shots=(0,), which is zero-shot.")


def _seen_before(model: str, material: Material) -> tuple[str, ...]:
    """Say which studies the model saw, unlabelled, when it was pretrained."""
    card = MODELS.get(model)
    seen = card.pretrained_accessions if card and not card.fitted else frozenset()  # baselines are fitted anew here
    studies = sorted(set(material.table.study) & seen)
    return tuple(f"seen before: {model} was pretrained on cells of {study}" for study in studies)


def _failed(error: errors.ScDrugMapError, material: Material, said: tuple[str, ...]) -> Outcome:
    return Outcome(
        "failed",
        warnings=said,
        n_cells=len(material.table),
        n_samples=material.table.n_samples(),
        value_type=material.value_type,
        error=type(error).__name__,
        reason=str(error),
        remedy=error.remedy,
    )


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
