"""From a plan file to its experiments: each question asked of each group of its data sets."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scdrugmap.errors import InvalidInput, ScDrugMapError
from scdrugmap.evaluation.cells.dataset_summary import DatasetSummary
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.plan.expand import expand_grid, groups
from scdrugmap.evaluation.plan.plan_file import UNNAMED, Ask, Plan, _keys


def catalogue(plan_: Plan) -> dict[str, list[DatasetSummary]]:
    """Return what the catalogue knows of the data of a plan that names keys only: for reading a plan without cells."""
    return {name: [DatasetSummary.from_card(key) for key in _keys(data)] for name, data in plan_.data.items()}


def expand(
    plan_: Plan, known: Mapping[str, Sequence[DatasetSummary]], device: str = "auto", **how: Any
) -> list[Experiment]:
    """Return the experiments of a plan, each once; `known` holds the outlines of each table of [data].

    A value of a facet that has too few data sets or studies for cross-data is left out: there is nothing to ask.
    Raises what `expand_grid` raises, naming the question.
    """
    experiments: list[Experiment] = []
    for number, ask in enumerate(plan_.ask, 1):
        try:
            experiments += _expand(ask, known, device, how)
        except ScDrugMapError as error:
            raise type(error)(f"ask {number}: {error}", error.remedy) from error
    return list(dict.fromkeys(experiments))


def _expand(
    ask: Ask, known: Mapping[str, Sequence[DatasetSummary]], device: str, how: Mapping[str, Any]
) -> list[Experiment]:
    by_name = {dataset.name: dataset for name in (ask.data or known) for dataset in known[name]}
    sources = sorted(by_name.values(), key=lambda dataset: dataset.name)
    experiments = []
    for part in [[dataset] for dataset in sources] if ask.apart else [sources]:
        for facet, split_by, seed in itertools.product(ask.facet, ask.split_by, ask.seeds):
            base = Experiment(
                "", "", (), protocol=ask.protocol, split_by=split_by, facet=facet, folds=ask.folds, seed=seed
            )
            for group, question in _questions(ask, base, part, known):
                knobs, options = ask.settings, ask.options
                more = expand_grid(
                    question, group, ask.models, ask.heads, ask.strategies, ask.shots, device,
                    knobs=knobs, options=options, **how,
                )  # fmt: skip
                named = ask.called if ask.called and facet == "all" else ""
                experiments += [
                    dataclasses.replace(experiment, facet_value=named) if named else experiment for experiment in more
                ]
    return experiments


def _questions(
    ask: Ask, base: Experiment, sources: Sequence[DatasetSummary], known: Mapping[str, Sequence[DatasetSummary]]
) -> Iterable[tuple[list[DatasetSummary], Experiment]]:
    """Yield each group of data sets with what trains in it."""
    for value, group in groups(sources, base.facet).items():
        names = [dataset.name for dataset in group]
        units = {study for dataset in group for study in dataset.studies} if base.split_by == "study" else set(names)
        if base.facet != "all" and (value == UNNAMED or (base.protocol == "cross-data" and len(units) < 2)):
            continue
        if not ask.train:
            yield group, base
        elif ask.train == "each":
            able = [dataset.name for dataset in group if len(dataset.classes) != 1]  # one class alone teaches nothing
            yield from ((group, dataclasses.replace(base, train=(name,))) for name in able)
        else:
            train = tuple(name for name in names if name in _training(ask.train, sources, known))
            if train and len(train) < len(names):
                yield group, dataclasses.replace(base, train=train)
            elif base.facet == "all":
                message = f"train = {ask.train!r} leaves nothing to train on, or nothing to test, of {', '.join(names)}"
                raise InvalidInput(message, "Name some of the question's data sets, not all.")


def _training(
    train: str | list[str], sources: Sequence[DatasetSummary], known: Mapping[str, Sequence[DatasetSummary]]
) -> set[str]:
    if train == "primary":
        return {dataset.name for dataset in sources if dataset.collection == "primary"}
    names = {dataset.name for dataset in sources}
    chosen: set[str] = set()
    for name in train:
        if name not in known and name not in names:
            message = f"train names '{name}', which is neither a table of [data] nor a data set of the question."
            raise InvalidInput(message, f"Possible: {', '.join((*known, *sorted(names)))}.")
        chosen |= {dataset.name for dataset in known[name]} if name in known else {name}
    return chosen
