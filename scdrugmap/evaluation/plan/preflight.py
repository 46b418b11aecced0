"""What a grid lacks on this machine before it is run: cells, weights, consent; each with what to type."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.cells.dataset_summary import DatasetSummary
from scdrugmap.evaluation.experiment import CONSTANT, Experiment
from scdrugmap.evaluation.plan.compute_cost import estimate, work
from scdrugmap.evaluation.plan.experiments import catalogue
from scdrugmap.evaluation.plan.plan_file import Plan
from scdrugmap.evaluation.run.gpu_slots import cards
from scdrugmap.evaluation.strategies.prompt import MAX_COST
from scdrugmap.models import MODELS
from scdrugmap.settings import Settings

_NAMED = 3  # data sets that a sentence spells out


@dataclass(frozen=True)
class Preflight:
    """Keys of data sets without cells here, and how many experiments each model without weights or consent has."""

    datasets: tuple[str, ...]
    of_datasets: int
    weights: Mapping[str, int]
    consent: Mapping[str, int]

    @classmethod
    def from_plan(cls, plan: Plan, experiments: Sequence[Experiment], settings: Settings) -> Preflight:
        """Look at a plan's keys and experiments; what was recorded before is not asked."""
        needy = Counter(
            experiment.model for experiment in experiments if not experiment.weights and _has_weights(experiment.model)
        )
        prompted = Counter(experiment.model for experiment in experiments if experiment.strategy == "prompt")
        consent = prompted if not os.environ.get(MAX_COST) else Counter()
        return cls(absent(plan, settings), len(_keys(plan)), dict(needy), dict(consent))

    def sentences(self, settings: Settings) -> Iterator[str]:
        """Say what is lacking, a line each, with what mends it."""
        if self.datasets:
            yield f"{_cells(self.datasets, self.of_datasets)} {_save(settings)}"
        for model, n in self.weights.items():
            mend = f"scdrugmap models fetch {model}, or --weights {model}=FOLDER"
            yield f"{model} has no weights here: {_counted(n)} would be recorded as failed. Type: {mend}"
        for model, n in self.consent.items():
            mend = f"export {MAX_COST}=1 (US dollars a run; docs/prompting.md)"
            yield f"{model} is asked over the network and costs money: {_counted(n)} need your consent. Type: {mend}"


def absent(plan: Plan, settings: Settings) -> tuple[str, ...]:
    """Return the keys of a plan's data sets whose cells are not on this machine."""
    return tuple(key for key in _keys(plan) if not (settings.data / f"{key}.h5ad").is_file())


def require_cells(plan: Plan, settings: Settings) -> None:
    """Raise `InvalidInput` that counts and names what is not there: a facet without a member is another question."""
    missing = absent(plan, settings)
    if missing:
        message = _cells(missing, len(_keys(plan)))
        raise InvalidInput(message, f"{_save(settings)} All that is lacking: scdrugmap benchmark status --plan FILE")


def estimate_hours(experiments: Sequence[Experiment], known: Mapping[str, DatasetSummary]) -> str:
    """Say how long models with weights may take at the speeds that were measured, "" where none is at work."""
    of = work(experiments, known)
    if not of:
        return ""
    cost = estimate(of, on_gpu=cards() > 0)
    unknown = f" Not in it, as no speed is known: {', '.join(cost.unknown)}." if cost.unknown else ""
    text = f"Embedding and LoRA may take {cost.hours:,.1f} h on {cost.device}." if cost.device else ""
    mend = "For other speeds: python benchmarks/cost.py PLAN --rate MODEL=CELLS_PER_SECOND (docs/reproducing.md)."
    return f"{text}{unknown} {mend}".strip()


def _keys(plan: Plan) -> list[str]:
    return list(dict.fromkeys(dataset.name for table in catalogue(plan).values() for dataset in table))


def _has_weights(model: str) -> bool:
    return model != CONSTANT and not (MODELS[model].fitted or MODELS[model].prompted)


def _cells(missing: Sequence[str], total: int) -> str:
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    names = ", ".join(missing[:_NAMED])
    return f"{len(missing)} of the plan's {total} catalogue data sets have no cells on this machine: {names}{more}."


def _save(settings: Settings) -> str:
    return f"Save each as {settings.data}/<key>.h5ad (docs/adding-a-dataset.md, part 4; scdrugmap data show KEY)."


def _counted(n: int) -> str:
    return f"{n:,} experiment{'s' * (n != 1)}"
