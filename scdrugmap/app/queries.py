"""Cached reads: the only door from the pages to the package that computes.

What is read depends on the settings, and on the time stamp of what lies on disk, both part of each cache key: a
benchmark that ends while the app runs is seen at the next click, and tests that move the cache see their own.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app import boards
from scdrugmap.app.jobs import service
from scdrugmap.data.catalog.card import DatasetCard
from scdrugmap.data.catalog.catalog import DATASETS, CellCount, cell_count, table
from scdrugmap.evaluation.metrics.metrics import METRICS, Metric
from scdrugmap.evaluation.results.run_record import Run
from scdrugmap.evaluation.results.store import read_run, read_runs, read_scores
from scdrugmap.models import MODELS
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints.locate import state
from scdrugmap.plots import cells as charts_cells
from scdrugmap.settings import Settings

# Metrics that are shown, in words of the screen; F1 first, as in the paper, and never alone.
SHOWN = {
    "F1": "f1", "AUROC": "auroc", "AUROC within folds": "auroc_within", "MCC": "mcc",
    "balanced accuracy": "balanced_accuracy", "AUPRC": "auprc", "F1 macro": "f1_macro", "Brier": "brier", "ECE": "ece",
}  # fmt: skip


TITLES = {key: found.title for key, found in METRICS.items()}


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


def cells_by(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return cells by response and the number of data sets per value of a column; see `charts_catalogue.cells_by`."""
    groups = []
    for (value,), part in rows.group_by(column, maintain_order=True):
        found = cell_count(part["key"])
        uncounted = len(found.uncounted)
        groups.append((str(value), part.height, found.sensitive, found.resistant, uncounted))
    return pl.DataFrame(groups, schema=["group", "datasets", "sensitive", "resistant", "uncounted"], orient="row")


def dataset(key: str) -> DatasetCard:
    """Return the card of a data set; raises `UnknownName`."""
    return DATASETS[key]


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


def state_of(key: str) -> str:
    """Return "ready", "bundled", "remote" (asked over the network) or "needs weights"."""
    return state(MODELS[key], settings().weights)


def seen(card: ModelCard) -> list[str]:
    """Return the data sets of the catalogue whose accession a model saw in pretraining."""
    return [key for key, one in DATASETS.items() if one.accession in card.pretrained_accessions]


def metric(name: str) -> Metric:
    """Return a metric by the word that the screen uses for it."""
    return METRICS[SHOWN[name]]


def asked_metric() -> str:
    """Return the metric that the address names, in words of the screen; F1 where it names none."""
    asked = st.query_params.get("metric", "")
    return asked if asked in SHOWN else next(iter(SHOWN))


def rule(key: str) -> str:
    """Return what the constant classifier of a metric does, in words."""
    return METRICS[key].constant_rule


def board() -> pl.DataFrame:
    """Return all scores as tidy rows; empty before anything was measured or reported."""
    here = settings()
    return _board(here, stamp(here))


@st.cache_resource(show_spinner="Reading scores", max_entries=8)
def _board(here: Settings, stamp: tuple[int, ...]) -> pl.DataFrame:
    return boards.tidy(_scores(here, stamp), models())


def scores() -> pl.DataFrame:
    """Return all scores as they are written, columns as `evaluation.results.store.SCORES`."""
    here = settings()
    return _scores(here, stamp(here))


@st.cache_resource(show_spinner=False, max_entries=8)  # shared, not copied: nobody writes into a polars frame
def _scores(here: Settings, stamp: tuple[int, ...]) -> pl.DataFrame:
    return read_scores(here)


def ranking(picks: Mapping[str, str]) -> pl.DataFrame:
    """Return the entries of one view of the leaderboard, best first; `picks` are words of the screen."""
    here = settings()
    view = {**picks, "metric": SHOWN[picks["metric"]]}
    return boards.ranking(_scores(here, stamp(here)), models(), **view)


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


def installed() -> dict[str, Any]:
    """Return what is here: models ready, asked elsewhere and missing, data sets built, runs and the last one's day."""
    known, done = models(), runs()
    return {
        "ready": known.filter(pl.col("state").is_in(["ready", "bundled"]))["title"].to_list(),
        "remote": known.filter(pl.col("state") == "remote")["title"].to_list(),
        "missing": known.filter(pl.col("state") == "needs weights")["title"].to_list(),
        "built": int(catalogue()["built"].sum()),
        "runs": done.filter(pl.col("state") == "done").height,
        "measured": max(done["date"], default="")[:10],
    }


def date_of(run_ids: pl.Series) -> str:
    """Return the day, or the first and last day, on which these runs were made; empty when none is a run."""
    days = runs().filter(pl.col("run_id").is_in(run_ids.implode()))["date"].str.head(10).unique().sort().to_list()
    return "" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def samples_of(run_ids: pl.Series) -> int:
    """Return how many samples the largest of these runs held; 0 where none is a run on this machine."""
    return max(runs().filter(pl.col("run_id").is_in(run_ids.implode()))["n_samples"].drop_nulls(), default=0)


def summary(job_id: str) -> dict[str, Any]:
    """Return what `predict` found in the cells of a finished job."""
    path = service().results(job_id)["summary"]
    return dict(json.loads(path.read_text()))


def cells(job_id: str) -> pl.DataFrame:
    """Return one row per cell of a finished job: position, prediction, and every column of the file that can colour."""
    path = service().results(job_id)["h5ad"]
    return _cells(job_id, str(path), path.stat().st_mtime_ns)


@st.cache_data(show_spinner="Reading the result", max_entries=4, scope="session")
def _cells(job_id: str, path: str, stamp: int) -> pl.DataFrame:
    import h5py
    from anndata.io import read_elem

    with h5py.File(path) as file:
        obs, umap = read_elem(file["obs"]), read_elem(file["obsm/X_umap"])
    frame = pl.from_pandas(obs.reset_index(drop=True))
    places = pl.DataFrame({"cell": obs.index.astype(str).to_numpy(str), "x": umap[:, 0], "y": umap[:, 1]})
    mine = [name for name in frame.columns if name not in places.columns]
    rank = (frame["p_resistant"].rank("average") - 0.5) / max(frame.height, 1)
    return pl.concat([places, frame.select(mine)], how="horizontal").with_columns(
        rank.alias(charts_cells.RANK), pl.col(pl.Categorical, pl.Enum).cast(pl.String)
    )


def forget(job_id: str) -> None:
    """Drop what this session remembers of a job that is deleted."""
    _cells.clear()


def colours(frame: pl.DataFrame) -> dict[str, str]:
    """Return what the map may be coloured by: words on screen -> column."""
    first = {
        "P(resistant)": "p_resistant",
        "rank of P(resistant) here": charts_cells.RANK,
        "prediction": "response",
        "novelty": "novelty",
        "cluster": "cluster",
    }
    mine = {*first.values(), "cell", "x", "y", "novel"}
    rest = [name for name in frame.columns if name not in mine and _colours(frame[name])]
    return first | {name.replace("_", " "): name for name in rest}


def _colours(values: pl.Series) -> bool:
    """Tell whether a column says something by colour: numbers, or two to a hundred different words."""
    different = values.drop_nulls().n_unique()
    return different > 1 and (values.dtype.is_numeric() or different <= 100)
