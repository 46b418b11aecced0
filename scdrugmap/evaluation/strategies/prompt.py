"""The strategy `prompt`: a language model is asked about cells, and nothing is trained.

At 0 shots the training side is not used at all: the cells of each data set are asked about as they are, the same
requests whatever the split, so that the answers are paid once for all protocols. With shots, the labelled cells of the
target among the training rows are told as examples, in a seeded order; rows of other data sets are not told.

A cell without a readable answer is predicted as NaN. It is never dropped: the loop calls it the wrong class, without
confidence (`metrics.failures`), and the run's warnings count such cells.

Benchmarks need the limit `SCDRUGMAP_MAX_COST` (US dollars for each experiment): to set it is to agree that gene names
are sent to the endpoint.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scdrugmap.errors import ConsentMissing, InvalidInput
from scdrugmap.evaluation.cells.labelled_cells import LabelledData
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.strategies.strategy import FoldRows
from scdrugmap.models import MODELS
from scdrugmap.progress import Progress
from scdrugmap.prompting.asker import PromptResult, PromptRunner
from scdrugmap.prompting.cell_fields import cell_texts
from scdrugmap.prompting.cost import Estimate, together
from scdrugmap.prompting.examples import in_order
from scdrugmap.prompting.prompt import VERSION, CellText, Example, prompt_hash
from scdrugmap.prompting.replies import P_SOURCES
from scdrugmap.prompting.reply_cache import prompts_folder
from scdrugmap.prompting.settings import PromptSettings

MAX_COST = "SCDRUGMAP_MAX_COST"
log = logging.getLogger(__name__)


class PromptStrategy:
    """Asks a language model about the cells of an experiment."""

    precision = ""
    chooses_epoch = False
    may_abstain = True

    def __init__(self, experiment: Experiment, material: LabelledData, asker: PromptRunner, progress: Progress) -> None:
        self.experiment, self.material, self.asker, self.progress = experiment, material, asker, progress
        self.device, self.weights = f"asked at {asker.endpoint.host}", f"prompt:{prompt_hash()}"
        self.source_of, self.row_of = _places(material)
        self._texts: dict[int, list[CellText]] = {}
        self._answers: dict[int, PromptResult] = {}

    @classmethod
    def from_experiment(
        cls,
        experiment: Experiment,
        material: LabelledData,
        *,
        folds: Iterable[FoldRows],
        device: str,
        cache: Path | None,
        progress: Progress,
        weights: str | None = None,
    ) -> PromptStrategy:
        """Find the endpoint and say what asking costs; nothing is sent yet. `device` computes nothing here, and there
        are no `weights` to load.

        Raises `InvalidInput` for a model that is not asked, `EndpointFailed` without a key, `ConsentMissing` without a
        limit, and `CostLimit` where the limit is too low.
        """
        card = MODELS[experiment.model]
        if not card.prompted:
            message = f"'{card.key}' embeds cells and cannot be asked."
            raise InvalidInput(message, "Use strategy 'freeze' or 'lora', or the model gpt-4o-mini.")
        settings = PromptSettings.from_card(card, dict(experiment.settings))
        asker = PromptRunner(settings, folder=prompts_folder(cache), seed=experiment.seed, max_cost=_limit())
        learner = cls(experiment, material, asker, progress)
        estimate = learner.estimate(folds)
        if asker.budget.limit is None:
            message = "Asking sends gene names to an endpoint, and may cost money: " + " ".join(estimate.lines)
            raise ConsentMissing(message, f"To agree, set a limit in US dollars for each run: export {MAX_COST}=1")
        asker.budget.admit(estimate)
        log.warning("%s", " ".join(estimate.lines))
        return learner

    def estimate(self, folds: Iterable[FoldRows]) -> Estimate:
        """Say what all folds would send and cost: each data set once at 0 shots, else each fold with its examples.

        Where no fold can be scored that is nothing; the record says why.
        """
        if self.experiment.shots:
            prompted = ((fold, self.examples(fold.train, fold.labels, fold.test)) for fold in folds)
            parts = [self.asker.estimate(self.texts_of(fold.test), examples) for fold, examples in prompted]
        else:
            sources = sorted({source for fold in folds for source in self.source_of[fold.test].tolist()})
            parts = [self.asker.estimate(self.texts(source)) for source in sources]
        return together(parts or [self.asker.estimate([])])

    def examples(self, train: np.ndarray, labels: np.ndarray, tested: np.ndarray) -> list[Example]:
        """Return the training rows of the tested data sets or studies, in a seeded order; none at 0 shots."""
        experiment = self.experiment
        if not experiment.shots:
            return []
        unit = self.material.table.units("study" if experiment.split_by == "study" else "dataset")
        beside = np.isin(unit[train], unit[tested])
        return in_order(self.texts_of(train[beside]), labels[beside].tolist(), experiment.seed)

    @property
    def spent(self) -> dict[str, Any]:
        """What asking took so far, for the record; answers that were known cost nothing."""
        budget, settings = self.asker.budget, self.asker.settings
        return {
            "host": self.asker.endpoint.host,
            "name": settings.name,
            "prompt": f"{VERSION} ({prompt_hash()})",
            **budget.spent(),
            "price_date": settings.price_date,
        }

    def fit(self, train: np.ndarray, labels: np.ndarray, validation: np.ndarray | None, *, fold: str) -> FittedPrompt:
        """Keep the labelled rows; which of them are the target's is known with the rows to predict."""
        return FittedPrompt(self, train, labels, fold)

    def texts(self, source: int) -> list[CellText]:
        """Return what is told of the cells of one data set."""
        if source not in self._texts:
            self._texts[source] = cell_texts(self.material.sources[source].adata, self.asker.settings)
        return self._texts[source]

    def texts_of(self, rows: np.ndarray) -> list[CellText]:
        """Return what is told of rows of the material's table."""
        return [self.texts(self.source_of[row])[self.row_of[row]] for row in rows]

    def zero_shot(self, source: int) -> PromptResult:
        """Return the answers about all cells of one data set, asked once."""
        if source not in self._answers:
            self._answers[source] = self.asker.ask(self.texts(source), progress=self.progress)
        return self._answers[source]


class FittedPrompt:
    """What a model says after it was told the shots of one fold, if any."""

    def __init__(self, learner: PromptStrategy, train: np.ndarray, labels: np.ndarray, fold: str) -> None:
        self.learner, self.train, self.labels, self.fold = learner, train, labels, fold
        self.notes: Sequence[str] = ()

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return P(resistant) of rows of the material's table, (n_rows,) float32; NaN without a readable answer."""
        learner = self.learner
        examples = learner.examples(self.train, self.labels, rows)
        if examples:
            answers = learner.asker.ask(learner.texts_of(rows), examples, progress=learner.progress)
            p, results = answers.p_resistant, [answers]
        else:
            sources = np.unique(learner.source_of[rows])
            by_source = {source: learner.zero_shot(source) for source in sources.tolist()}
            p = np.array(
                [by_source[learner.source_of[row]].p_resistant[learner.row_of[row]] for row in rows], dtype=np.float32
            )
            results = list(by_source.values())
        self.notes = self._notes(rows, results, len(examples), int(np.isnan(p).sum()))
        return p

    def _notes(self, rows: np.ndarray, results: Sequence[PromptResult], n_examples: int, n_failed: int) -> list[str]:
        learner = self.learner
        table = learner.material.table
        pooled = learner.experiment.protocol == "pooled"
        place = self.fold if pooled else " + ".join(np.unique(table.dataset[rows]).tolist())
        versions = sorted({name for result in results for name in result.model_versions})
        notes = [
            f"asked {' and '.join(versions) or 'nobody'} at {learner.asker.endpoint.host}, prompt {VERSION} "
            f"({prompt_hash()}): up to {learner.asker.settings.cells_per_request} cells a request, which see each other"
        ]
        if not n_examples:
            notes.append("the training side was not used: the model was asked without examples")
        if any(set(result.forms) - {"json_schema"} for result in results):
            notes.append("the endpoint was not held to the schema of the answer for every request")
        sources = {name for result in results for name in result.sources}
        notes += [f"P(resistant) is {' or '.join(P_SOURCES[name] for name in sorted(sources))}"] if sources else []
        if n_failed:
            notes.append(f"{place}: {n_failed} of {len(rows)} cells have no readable answer and count as wrong")
        return notes


def _places(material: LabelledData) -> tuple[np.ndarray, np.ndarray]:
    """Return the source of each row of the table, and its row there, (n_rows,) int each."""
    sizes = [source.adata.n_obs for source in material.sources]
    source = np.repeat(np.arange(len(sizes)), sizes)
    return source, np.concatenate([np.arange(size) for size in sizes])


def _limit() -> float | None:
    """Return the limit of a run in US dollars from the environment; None where none is set."""
    given = os.environ.get(MAX_COST, "").strip()
    if not given:
        return None
    try:
        limit = float(given)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        message = f"{MAX_COST}='{given}' is no amount of US dollars."
        raise InvalidInput(message, f"Run: export {MAX_COST}=1")
    return limit
