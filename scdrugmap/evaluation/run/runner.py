"""A grid of experiments, done: each is recorded as it ends, what is recorded as done is not done again.

Nothing is lost by a kill at any moment: a record is written whole or not at all, and embeddings are cached in shards.
Experiments on the same cells follow each other, and on these the experiments of one model, as the last cells and the
last encoder stay in memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from scdrugmap.embeddings.compute import embed_cells
from scdrugmap.errors import ScDrugMapError
from scdrugmap.evaluation.cells.dataset_summary import DatasetSummary, LoadedCells, StoredCells, store
from scdrugmap.evaluation.cells.labelled_cells import Loadable, labelled_data, load_labelled
from scdrugmap.evaluation.experiment import CONSTANT, Experiment, Options
from scdrugmap.evaluation.results.run_record import Outcome, Run, environment
from scdrugmap.evaluation.results.store import find_done, write_run, write_scores
from scdrugmap.evaluation.run import parallel
from scdrugmap.evaluation.run.evaluate import evaluate
from scdrugmap.evaluation.run.gpu_slots import cards, own_device
from scdrugmap.evaluation.strategies.features import load_encoder
from scdrugmap.models import MODELS
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

    Origin: TypeAlias = str | Path | AnnData | StoredCells | LoadedCells

log = logging.getLogger(__name__)
_busy = threading.Lock()  # a Dask worker may have threads: one experiment at a time, or they would share generators


@dataclass(frozen=True)
class RunContext:
    """Where work is done: settings, device, whether the process takes a GPU for itself, and weights from elsewhere."""

    settings: Settings
    device: str = "auto"
    own_gpu: bool = False
    weights: Mapping[str, str] = field(default_factory=dict)  # by model: a folder or Hub id, for the card's source

    def find(self) -> str:
        """Return the device of this process."""
        if not (self.own_gpu and self.device == "auto"):
            return self.device
        return own_device(self.settings.cache / "locks", cards())


@dataclass(frozen=True)
class Task:
    """One experiment and what a worker needs for it: names and paths where it is another process."""

    experiment: Experiment
    datasets: tuple[Origin, ...]
    place: RunContext
    remarks: Mapping[str, str] = field(default_factory=dict)
    simulated: tuple[str, ...] = ()  # names of the data sets of simulated cells

    @property
    def fitted(self) -> bool:
        """Tell whether no encoder with weights is at work: a baseline, or a model that is asked elsewhere."""
        model = self.experiment.model
        return model == CONSTANT or MODELS[model].fitted or MODELS[model].prompted


@dataclass(frozen=True)
class Embedding:
    """One data set to be embedded by one model before experiments read it from the cache."""

    model: str
    settings: Options
    content: str
    dataset: Origin
    place: RunContext


def perform(task: Task) -> Run:
    """Do a task, record it, and return the record; one that is recorded as done is only read."""
    experiment, place = task.experiment, task.place
    with _busy:
        run = find_done(experiment.run_id, place.settings)
        if run is not None:
            return run
        predictions = None
        try:
            material = labelled_data(experiment.contents, _opened(task.datasets), place.settings)
        except ScDrugMapError as error:
            run = _failed(task, error)
        else:
            run, predictions = evaluate(
                experiment,
                material,
                cache=place.settings.embeddings,
                device=place.find(),
                remarks=task.remarks,
                weights=place.weights.get(experiment.model),
            )
        write_run(place.settings.results, run, predictions)
        return run


def embed(task: Embedding) -> None:
    """Put the embedding of a data set into the cache; what prevents it is left for the experiments to say."""
    place = task.place
    with _busy:
        try:
            sources = load_labelled(_opened([task.dataset]), place.settings)
            encoder = load_encoder(task.model, place.find(), task.settings, place.weights.get(task.model))
            for source in sources:
                if source.content == task.content and encoder is not None:
                    embed_cells(source.adata, encoder, cache=place.settings.embeddings)
        except ScDrugMapError as error:
            log.info("%s was not embedded ahead: %s", task.model, error)
        # As in `evaluate`: a bug here is met again, and recorded, by the experiments that need the embedding.
        except Exception:
            log.exception("%s was not embedded ahead", task.model)


def run_grid(
    experiments: Iterable[Experiment],
    outlines: Iterable[DatasetSummary],
    settings: Settings,
    *,
    workers: str = "1",
    device: str = "auto",
    remarks: Mapping[str, str] | None = None,
    weights: Mapping[str, str] | None = None,
    ended: Callable[[Run, bool], None] = lambda run, new: None,
) -> dict[str, Run]:
    """Do what is not done yet and return all records by run_id; `ended` hears of each, and whether it is new.

    `weights` are the folders or Hub ids by model with which the experiments were planned. What cannot be done, a bug
    included, is recorded as failed and the others go on. The table of scores is derived anew at the end, also after an
    interruption, which passes through: the same call goes on where it stopped.
    """
    runs: dict[str, Run] = {}
    place = RunContext(settings, device, own_gpu=parallel.backend(workers) == "processes", weights=dict(weights or {}))
    outlines = list(outlines)
    origins = _origins(outlines, place, workers)
    marked = {outline.name for outline in outlines if outline.simulated}
    try:
        todo = []
        for experiment in in_order(experiments):
            run = find_done(experiment.run_id, settings)
            if run is None:
                datasets = tuple(
                    {id(origin): origin for origin in (origins[key] for key in experiment.contents)}.values()
                )
                simulated = tuple(name for name in experiment.datasets if name in marked)
                todo.append(Task(experiment, datasets, place, dict(remarks or {}), simulated))
            else:
                runs[run.run_id] = run
                ended(run, False)
        for run in _work(todo, origins, workers):
            runs[run.run_id] = run
            ended(run, True)
    finally:
        write_scores(settings.results)
    return runs


def _work(todo: list[Task], origins: Mapping[str, Origin], workers: str) -> Iterator[Run]:
    """Yield records as they are made: models with weights, which may want a GPU, and then all others."""
    with_weights = [task for task in todo if not task.fitted]
    if workers != "1":  # or each process would embed for itself what others embed at the same time
        for _ in parallel.run(embed, _ahead(with_weights, origins), workers=workers, gpu=True, lost=_not_ahead):
            pass
    others = [task for task in todo if task.fitted]
    yield from parallel.run(perform, others, workers=workers, lost=_lost)
    yield from parallel.run(perform, with_weights, workers=workers, gpu=True, lost=_lost)


def in_order(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Return experiments with those on the same cells together, and of these those of one model."""
    todo = list(dict.fromkeys(experiments))
    cells = {contents: i for i, contents in enumerate(dict.fromkeys(experiment.contents for experiment in todo))}
    models = {
        model: i
        for i, model in enumerate(dict.fromkeys((experiment.model, experiment.settings) for experiment in todo))
    }

    def place(experiment: Experiment) -> tuple[int, int, str]:
        model = models[experiment.model, experiment.settings]
        return cells[experiment.contents], model, experiment.strategy

    return sorted(todo, key=place)


def _origins(outlines: Iterable[DatasetSummary], place: RunContext, workers: str) -> dict[str, Origin]:
    """Return by content where the cells of each data set are had by who works on them."""
    by_content: dict[str, Origin] = {}
    for outline in outlines:
        if outline.loaded is not None and workers == "1":
            by_content[outline.content] = outline.loaded
        elif isinstance(outline.origin, str | Path) or workers == "1":
            by_content[outline.content] = outline.origin
        elif outline.content not in by_content:
            by_content |= {source.content: store(source, place.settings) for source in load_labelled([outline.origin])}
    return by_content


def _opened(datasets: Iterable[Origin]) -> Iterator[Loadable]:
    for dataset in datasets:
        yield dataset.read() if isinstance(dataset, StoredCells | LoadedCells) else dataset


def _ahead(tasks: Iterable[Task], origins: Mapping[str, Origin]) -> list[Embedding]:
    """Return each data set that some experiments read embedded by some model, once."""
    wanted = {
        (experiment.model, experiment.settings, content): task.place
        for task in tasks
        for experiment in [task.experiment]
        for content in experiment.contents
        if experiment.strategy == "freeze"
    }
    return [Embedding(*key, origins[key[2]], place) for key, place in wanted.items()]


def _lost(task: Task, error: ScDrugMapError) -> Run:
    run = _failed(task, error)
    write_run(task.place.settings.results, run)
    return run


def _not_ahead(task: Embedding, error: ScDrugMapError) -> None:
    log.warning("%s was not embedded ahead: %s", task.model, error)


def _failed(task: Task, error: ScDrugMapError) -> Run:
    """Return the record of an experiment that never came to its cells."""
    outcome = Outcome("failed", error=type(error).__name__, reason=str(error), remedy=error.remedy)
    where = environment(device="", precision="", weights="", data={}, seconds=0.0, simulated=task.simulated)
    return Run(task.experiment, outcome, where)
