"""Cached reads of the views beside the ranking: transfer, few-shot, calibration, significance, data sets won.

Each asks one function of the package about all scores; the answer is kept until the results on disk change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app import boards
from scdrugmap.app.queries import models, run, runs, scores, settings, stamp
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.errors import UnknownName
from scdrugmap.evaluation.analysis import few_shot_curves, leaderboard, leakage_gap, significance, transfer_matrix
from scdrugmap.evaluation.analysis import scores as tables
from scdrugmap.evaluation.metrics import reliability, roc_and_confusion
from scdrugmap.evaluation.results.store import read_predictions
from scdrugmap.models import speed
from scdrugmap.settings import Settings

View = Mapping[str, Any]
QUESTIONS: dict[str, Callable[..., Any]] = {
    "matrix": transfer_matrix.matrix,
    "entries": transfer_matrix.entries,
    "held out": transfer_matrix.held_out,
    "curves": few_shot_curves.curves,
    "compare": significance.compare,
    "by facet": leaderboard.by_facet,
    "won": leaderboard.won,
}
MADE_UP = "simulated-"  # what the names of simulated data sets begin with


@st.cache_data(show_spinner="Comparing scores", max_entries=64)
def _ask(here: Settings, changed: tuple[int, ...], question: str, options: tuple[tuple[str, Any], ...]) -> Any:
    named = {name: list(value) if isinstance(value, tuple) else value for name, value in options}
    if question == "matrix":
        simulated = pl.col("datasets").list.first().str.starts_with(MADE_UP.rstrip("-"))
        named["failed"] = runs().filter(simulated == named["made_up"])
    return QUESTIONS[question](scores(), **named)


def _answer(question: str, **options: Any) -> Any:
    here = settings()
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return _ask(here, stamp(here), question, tuple(sorted(plain.items())))


def entries(*, made_up: bool) -> pl.DataFrame:
    """Return what was trained on one data set and tested on another: `title`, the words of an entry, `pairs`."""
    return boards.titled(_answer("entries", made_up=made_up), models())


def matrix(metric: str, *, made_up: bool, datasets: list[str] | None = None, **view: Any) -> pl.DataFrame:
    """Return the pairs of one entry; see `evaluation.analysis.transfer_matrix.matrix`."""
    return _answer("matrix", metric=metric, made_up=made_up, datasets=datasets, **view)


def held_out(metric: str, *, made_up: bool, **view: Any) -> pl.DataFrame:
    """Return how each unit is called by what has seen all others; see `transfer_matrix.held_out`."""
    return _answer("held out", metric=metric, made_up=made_up, **view)


def few_shot(metric: str, *, made_up: bool, **view: Any) -> pl.DataFrame:
    """Return the points of the few-shot curves, with `title`; see `evaluation.analysis.few_shot_curves.curves`."""
    return boards.titled(_answer("curves", metric=metric, made_up=made_up, **view), models())


def compare(metric: str, *, made_up: bool, **view: Any) -> significance.Comparison:
    """Return the paired comparison over data sets; raises `InvalidInput` where there is none."""
    return _answer("compare", metric=metric, made_up=made_up, **view)


def by_facet(metric: str, facet: str, **view: Any) -> pl.DataFrame:
    """Return the entries under each value of a facet, named for the screen; see `leaderboard.by_facet`."""
    return boards.named(_answer("by facet", metric=metric, facet=facet, **view), models())


def won(metric: str, **view: Any) -> pl.DataFrame:
    """Return how many data sets each entry wins; see `evaluation.analysis.scores.won`."""
    return _answer("won", metric=metric, **view)


def ordered(table: pl.DataFrame, by: str) -> list[str]:
    """Return the data sets of a matrix in an order: "similarity", "name", "cancer" or "drug type"."""
    names = table["train"].unique().to_list()
    return transfer_matrix.ordered(table, by, {name: facts(name).get(by, "") for name in names})


def facts(dataset: str) -> dict[str, str]:
    """Return what the catalogue knows of a data set, simulated ones under their model's name; empty for any other."""
    card = DATASETS.get(dataset.removeprefix(MADE_UP))
    return {} if card is None else {"cancer": card.cancer_type, "drug type": card.drug_type, "tissue": card.tissue}


def groups(names: list[str]) -> dict[str, list[str]]:
    """Return the data sets that share a cancer, a drug type or a tissue, by "cancer: Melanoma" and the like."""
    found: dict[str, list[str]] = {}
    for name in names:
        for kind, value in facts(name).items():
            found.setdefault(f"{kind}: {value}", []).append(name)
    return {word: own for word, own in sorted(found.items()) if 1 < len(own) < len(names)}


@st.cache_data(show_spinner=False, max_entries=64)
def _trained(here: Settings, changed: tuple[int, ...], run_ids: tuple[str, ...]) -> pl.DataFrame:
    found = []
    for run_id in run_ids:
        try:
            parts = run(run_id).outcome.parts
        except UnknownName:  # its scores were brought here without its record
            continue
        alone = (part for part in parts if part.n_train and len(part.test) == 1)
        found += [(run_id, part.test[0], part.n_train, part.left_out) for part in alone]
    schema = {"run_id": pl.String, "test": pl.String, "n_train": pl.Int64, "left_out": pl.Int64}
    return pl.DataFrame(found, schema=schema, orient="row").unique(["run_id", "test"], keep="first")


def trained(table: pl.DataFrame) -> pl.DataFrame:
    """Add `n_train` and `left_out` (cells that trained, and copies that did not), as the records of the runs say."""
    here = settings()
    ids = tuple(table["run_id"].drop_nulls().unique().sort())
    return table.join(_trained(here, stamp(here), ids), on=["run_id", "test"], how="left", maintain_order="left")


def title_of(model: str, head: str) -> str:
    """Return the name of an entry on screen."""
    return boards.title_of(model, head, models())


def seeds(run_id: str, metric: str, test: str = "") -> pl.DataFrame:
    """Return the runs whose mean a score is: `seed`, `value`, `ci_low`, `ci_high`, `n`, `run_id`, one row a seed.

    `test` names the data set where the score is of one data set of a run, else all its cells count together.
    """
    rows = scores().filter(pl.col("metric") == metric, pl.col("source") != "reported")
    if test:
        own = rows.filter(test=test).sort(pl.col("fold") != test).unique("run_id", keep="first", maintain_order=True)
        rows = own.filter(pl.col("n") == pl.col("n").max().over("train", "seed"))
    else:
        rows = rows.filter(fold="all")
    same = ["model", "head", "strategy", "variant", "shots", "protocol", "split_by", "facet", "facet_value"]
    same += ["train", "test", "design"]
    found = rows.join(rows.filter(run_id=run_id).select(same), on=same, how="semi", nulls_equal=True)
    return found.sort("seed", "run_id").select("seed", "value", "ci_low", "ci_high", "n", "run_id")


def remedy_of(run_id: str) -> str:
    """Return what mends a run that failed; empty where its record says nothing."""
    return next(iter(runs().filter(run_id=run_id)["remedy"].drop_nulls()), "")


def belongs(dataset: str, group: str) -> bool:
    """Tell whether a data set is one of a group that `groups` names; `widgets.ANY` names all."""
    kind, _, value = group.partition(": ")
    return not value or facts(dataset).get(kind) == value


@st.cache_data(show_spinner="Reading predictions", max_entries=16)
def predictions(run_id: str, dataset: str = "") -> pl.DataFrame:
    """Return the predictions of a run, of one data set where it is named; raises `UnknownName`."""
    rows = read_predictions(run_id, settings())
    return rows.filter(dataset=dataset) if dataset else rows


@st.cache_data(show_spinner="Drawing samples", max_entries=32)
def calibration(run_id: str) -> reliability.Reliability:
    """Return how far P(resistant) of a run means what it says; raises `UnknownName`."""
    return reliability.reliability(read_predictions(run_id, settings()))


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


def gaps(metric: str) -> pl.DataFrame:
    """Return the leakage gap of each entry on real cells with its interval; see `leakage_gap.gaps`."""
    here = settings()
    return _gaps(here, stamp(here), metric)


@st.cache_data(show_spinner="Drawing samples", max_entries=16)
def _gaps(here: Settings, changed: tuple[int, ...], metric: str) -> pl.DataFrame:
    real = scores().filter(~tables.simulated(scores()))
    found = leakage_gap.gaps(real, lambda run_id: read_predictions(run_id, here), (metric,))
    return boards.titled(found, models())


def speeds() -> pl.DataFrame:
    """Return how fast models embed as `benchmarks/embed.py` measured it: `model`, `cells_per_s`, `machine`, `date`.

    Of several speeds of a model, that of the device of most cells a second counts.
    """
    schema = {"model": pl.String, "cells_per_s": pl.Float64, "machine": pl.String, "date": pl.String}
    rows = [(each.model, each.cells_per_s, _machine(each), each.date) for each in speed.speeds()]
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.sort("cells_per_s", descending=True).unique("model", keep="first")


def _machine(measured: speed.Speed) -> str:
    return f"{measured.machine}, {measured.device}, {measured.threads} thread{'s' * (measured.threads != 1)}"
