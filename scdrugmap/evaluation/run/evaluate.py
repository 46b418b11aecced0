"""One experiment: split, learn, score, and the record of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from scdrugmap import errors
from scdrugmap.evaluation.cells.labelled_cells import LabelledData
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.run_record import Outcome, Run, environment
from scdrugmap.evaluation.splits.cross_validate import CrossValidation
from scdrugmap.evaluation.strategies.strategy import Strategy, make_strategy
from scdrugmap.models import MODELS
from scdrugmap.progress import Progress

log = logging.getLogger(__name__)


def evaluate(
    experiment: Experiment,
    material: LabelledData,
    *,
    cache: Path | None = None,
    device: str = "auto",
    progress: Progress = False,
    remarks: Mapping[str, str] | None = None,
    weights: str | None = None,
) -> tuple[Run, pl.DataFrame | None]:
    """Do one experiment; return its record and its out-of-fold predictions.

    What data, labels or weights do not allow is no error here but a record with state "failed" and its reason, and
    predictions are None; so is a bug, whose class `outcome.error` names. `cache` is the store of embeddings. `remarks`
    are sentences about data sets, by name, that go into the record's warnings. `weights` is a folder or Hub id in place
    of the card's source. `Cancelled` passes through.
    """
    start = time.perf_counter()
    notes = tuple(f"{name}: {text}" for name, text in (remarks or {}).items() if name in experiment.datasets)
    notes += _seen_before(experiment.model, material)
    learner: Strategy | None = None
    predictions = None
    try:
        folds = CrossValidation.from_experiment(experiment, material)
        how: dict[str, Any] = {"device": device, "cache": cache, "progress": progress, "weights": weights}
        learner = make_strategy(experiment, material, folds=folds.scored_rows(), **how)
        outcome, predictions = folds.score(learner, notes)
    except errors.Cancelled:
        raise
    except errors.ScDrugMapError as error:
        outcome = _failed(error, material, notes)
    # A bug, or memory that ran out, must not end a grid of hundreds: it is recorded as failed, like any other reason,
    # its traceback goes to the log, and a later run tries it again. Nothing is swallowed: this is the loop's boundary.
    except Exception as error:
        log.exception("%s with %s ended in a bug", experiment.model, experiment.strategy)
        outcome = _failed(error, material, notes)
    where = environment(
        device=learner.device if learner else "",
        precision=learner.precision if learner else "",
        weights=learner.weights if learner else "",
        data={source.name: source.fingerprint for source in material.sources},
        seconds=time.perf_counter() - start,
        asked=learner.spent if learner else {},
        simulated=(source.name for source in material.sources if source.simulated),
    )
    return Run(experiment, outcome, where), predictions


def _seen_before(model: str, material: LabelledData) -> tuple[str, ...]:
    """Say which studies the model saw, unlabelled, when it was pretrained."""
    card = MODELS.get(model)
    seen = card.pretrained_accessions if card and not card.fitted else frozenset()  # baselines are fitted anew here
    studies = sorted(set(material.table.study) & seen)
    return tuple(f"seen before: {model} was pretrained on cells of {study}" for study in studies)


def _failed(error: Exception, material: LabelledData, notes: tuple[str, ...]) -> Outcome:
    return Outcome(
        "failed",
        warnings=notes,
        n_cells=len(material.table),
        n_samples=material.table.n_samples(),
        value_type=material.value_type,
        error=type(error).__name__,
        reason=str(error) or "It ended without a message.",
        remedy=error.remedy if isinstance(error, errors.ScDrugMapError) else "The log has the traceback: report it.",
    )
