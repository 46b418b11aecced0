"""Cached reads of the transfer page."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui.board import titled
from scdrugmap.app.ui.queries import answer, models, predictions, run, runs, settings, stamp
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.data.labels import SIMULATED
from scdrugmap.errors import UnknownName
from scdrugmap.evaluation.analysis import transfer_matrix
from scdrugmap.evaluation.metrics import roc_and_confusion
from scdrugmap.settings import Settings


def entries(*, simulated: bool) -> pl.DataFrame:
    """Return what was trained on one data set and tested on another: `title`, the words of an entry, `pairs`."""
    return titled(answer("entries", simulated=simulated), models())


def matrix(metric: str, *, simulated: bool, datasets: list[str] | None = None, **view: Any) -> pl.DataFrame:
    """Return the pairs of one entry; see `evaluation.analysis.transfer_matrix.matrix`."""
    return answer("matrix", metric=metric, simulated=simulated, datasets=datasets, **view)


def held_out(metric: str, *, simulated: bool, **view: Any) -> pl.DataFrame:
    """Return how each unit is called by what has seen all others; see `transfer_matrix.held_out`."""
    return answer("held out", metric=metric, simulated=simulated, **view)


def ordered(table: pl.DataFrame, by: str) -> list[str]:
    """Return the data sets of a matrix in an order: "similarity", "name", "cancer" or "drug type"."""
    names = table["train"].unique().to_list()
    return transfer_matrix.ordered(table, by, {name: facts(name).get(by, "") for name in names})


def facts(dataset: str) -> dict[str, str]:
    """Return what the catalogue knows of a data set, simulated ones under their model's name; empty for any other."""
    card = DATASETS.get(dataset.removeprefix(SIMULATED))
    return {} if card is None else {"cancer": card.cancer_type, "drug type": card.drug_type, "tissue": card.tissue}


def groups(names: list[str]) -> dict[str, list[str]]:
    """Return the data sets that share a cancer, a drug type or a tissue, by "cancer: Melanoma" and the like."""
    members: dict[str, list[str]] = {}
    for name in names:
        for kind, value in facts(name).items():
            members.setdefault(f"{kind}: {value}", []).append(name)
    return {word: datasets for word, datasets in sorted(members.items()) if 1 < len(datasets) < len(names)}


@st.cache_data(show_spinner=False, max_entries=64)
def _trained(here: Settings, changed: tuple[int, ...], run_ids: tuple[str, ...]) -> pl.DataFrame:
    sizes = []
    for run_id in run_ids:
        try:
            parts = run(run_id).outcome.parts
        except UnknownName:  # its scores were brought here without its record
            continue
        alone = (part for part in parts if part.n_train and len(part.test) == 1)
        sizes += [(run_id, part.test[0], part.n_train, part.left_out) for part in alone]
    schema = {"run_id": pl.String, "test": pl.String, "n_train": pl.Int64, "left_out": pl.Int64}
    return pl.DataFrame(sizes, schema=schema, orient="row").unique(["run_id", "test"], keep="first")


def trained(table: pl.DataFrame) -> pl.DataFrame:
    """Add `n_train` and `left_out` (cells that trained, and copies that did not), as the records of the runs say."""
    here = settings()
    ids = tuple(table["run_id"].drop_nulls().unique().sort())
    return table.join(_trained(here, stamp(here), ids), on=["run_id", "test"], how="left", maintain_order="left")


def remedy_of(run_id: str) -> str:
    """Return what mends a run that failed; empty where its record says nothing."""
    return next(iter(runs().filter(run_id=run_id)["remedy"].drop_nulls()), "")


def belongs(dataset: str, group: str) -> bool:
    """Tell whether a data set is one of a group that `groups` names; `widgets.ANY` names all."""
    kind, _, value = group.partition(": ")
    return not value or facts(dataset).get(kind) == value


def confusion(run_id: str, dataset: str, threshold: float) -> pl.DataFrame:
    """Return who was called what at a threshold; see `evaluation.metrics.roc_and_confusion.confusion`."""
    return roc_and_confusion.confusion(predictions(run_id, dataset), threshold)


def by_sample(run_id: str, dataset: str) -> pl.DataFrame:
    """Return the spread of P(resistant) in each sample; see `evaluation.metrics.roc_and_confusion.by_sample`."""
    return roc_and_confusion.by_sample(predictions(run_id, dataset))


def roc(run_id: str, dataset: str) -> pl.DataFrame:
    """Return the ROC curve of a run on a data set; see `evaluation.metrics.roc_and_confusion.roc`."""
    return roc_and_confusion.roc(predictions(run_id, dataset))


def precision_recall(run_id: str, dataset: str) -> pl.DataFrame:
    """Return the precision-recall curve of a run on a data set; see `roc_and_confusion`."""
    return roc_and_confusion.precision_recall(predictions(run_id, dataset))
