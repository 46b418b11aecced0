"""What a grid costs before it is run: cells that models with weights embed, and hours at speeds that were measured.

A frozen encoder embeds each cell once under each choice of its settings. LoRA trains the cells of its steps, at three
times the price of embedding them (measured: docs/lora.md), and passes validation and test cells through; every fold is
trained anew. Fitting heads, and what an endpoint asks for its answers, are not in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scdrugmap.data.catalog.catalog import DATASETS, cell_count
from scdrugmap.evaluation.cells.dataset_summary import DatasetSummary
from scdrugmap.evaluation.experiment import BASELINES, Experiment
from scdrugmap.evaluation.splits.protocols import VALIDATION_FOLDS
from scdrugmap.evaluation.strategies.lora.training_options import LoraOptions
from scdrugmap.models.speed import speeds

BACKWARD = 3.0  # a step over embedding its cells: docs/lora.md
Work = Mapping[tuple[str, str], float]  # by model and strategy


def work(experiments: Iterable[Experiment], known: Mapping[str, DatasetSummary]) -> Work:
    """Return the cells to embed by model and strategy, a trained cell counted as `BACKWARD`; `known` goes by name."""
    embedded: dict[tuple[str, str, object], set[str]] = defaultdict(set)
    cells: dict[tuple[str, str], float] = defaultdict(float)
    for experiment in experiments:
        if experiment.model in BASELINES:
            continue
        if experiment.strategy == "lora":
            cells[experiment.model, experiment.strategy] += _lora_cells(experiment, known)
        else:
            embedded[experiment.model, experiment.strategy, experiment.settings] |= set(experiment.datasets)
    for (model, strategy, _), names in embedded.items():
        cells[model, strategy] += _cells(names, known)
    return dict(cells)


def _cells(names: Iterable[str], known: Mapping[str, DatasetSummary]) -> int:
    """Count the cells of data sets: those of the catalogue by its rules for shared ones, others as they are."""
    names = list(names)
    n_given = sum(known[name].n_cells for name in names if name not in DATASETS)
    return n_given + cell_count([name for name in names if name in DATASETS]).total


def _lora_cells(experiment: Experiment, known: Mapping[str, DatasetSummary]) -> float:
    total, options = _cells(experiment.datasets, known), LoraOptions.from_options(experiment.options)
    if experiment.train:
        train = _cells(experiment.train, known)
        sides = [(train, total - train)]
    else:
        n = _folds(experiment, known)
        sides = [(total - total // n, total // n)] * n if n > 1 else []  # one unit: it is recorded as impossible
    held = 1 / VALIDATION_FOLDS[0]
    return sum(
        options.budget(int(train * (1 - held))) * options.batch_size * BACKWARD + options.checks * train * held + test
        for train, test in sides
    )


def _folds(experiment: Experiment, known: Mapping[str, DatasetSummary]) -> int:
    studies = {study for name in experiment.datasets for study in known[name].studies}
    units = {"dataset": len(experiment.datasets), "study": len(studies)}.get(experiment.split_by, experiment.folds)
    return min(units, experiment.folds) if experiment.protocol == "pooled" else units


@dataclass(frozen=True)
class ComputeEstimate:
    """Hours of embedding and LoRA on one device of one kind, and the models of which no speed is known there."""

    hours: float
    device: str
    unknown: tuple[str, ...]


def estimate(of: Work, *, on_gpu: bool) -> ComputeEstimate:
    """Return what some work takes at the speeds that were measured at published size, on a GPU or on one CPU core."""
    measured = [speed for speed in speeds() if (speed.device != "cpu") == on_gpu]
    rates = {speed.model: speed.cells_per_s for speed in measured}
    hours = sum(cells / rates[model] / 3600 for (model, _), cells in of.items() if model in rates)
    devices = dict.fromkeys("one CPU core" if speed.device == "cpu" else speed.device for speed in measured)
    unknown = dict.fromkeys(model for model, _ in of if model not in rates)
    return ComputeEstimate(hours, " or ".join(devices), tuple(unknown))
