"""Cached reads of the views beside the ranking: transfer, few-shot, calibration, significance, data sets won.

Each asks one function of the package about all scores; the answer is kept until the results on disk change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.models import frames
from scdrugmap.app.ui import board
from scdrugmap.app.ui.queries import SHOWN, _scores, answer, models, scores, settings, stamp
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.evaluation.analysis import leakage_gap, significance
from scdrugmap.evaluation.metrics import reliability
from scdrugmap.evaluation.results.store import read_predictions
from scdrugmap.models import MODELS, speed
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints.locate import state
from scdrugmap.settings import Settings


def few_shot(metric: str, *, simulated: bool, **view: Any) -> pl.DataFrame:
    """Return the points of the few-shot curves, with `title`; see `evaluation.analysis.few_shot_curves.curves`."""
    return board.titled(answer("curves", metric=metric, simulated=simulated, **view), models())


def compare(metric: str, *, simulated: bool, **view: Any) -> significance.Comparison:
    """Return the paired comparison over data sets; raises `InvalidInput` where there is none."""
    return answer("compare", metric=metric, simulated=simulated, **view)


def by_facet(metric: str, facet: str, **view: Any) -> pl.DataFrame:
    """Return the entries under each value of a facet, named for the screen; see `leaderboard.by_facet`."""
    return board.named(answer("by facet", metric=metric, facet=facet, **view), models())


def won(metric: str, **view: Any) -> pl.DataFrame:
    """Return how many data sets each entry wins; see `evaluation.analysis.scores.won`."""
    return answer("won", metric=metric, **view)


@st.cache_data(show_spinner="Drawing samples", max_entries=32)
def calibration(run_id: str) -> reliability.Reliability:
    """Return how far P(resistant) of a run means what it says; raises `UnknownName`."""
    return reliability.reliability(read_predictions(run_id, settings()))


def gaps(metric: str) -> pl.DataFrame:
    """Return the leakage gap of each entry on real cells with its interval; see `leakage_gap.gaps`."""
    here = settings()
    return _gaps(here, stamp(here), metric)


@st.cache_data(show_spinner="Drawing samples", max_entries=16)
def _gaps(here: Settings, changed: tuple[int, ...], metric: str) -> pl.DataFrame:
    real = scores().filter(simulated=False)
    table = leakage_gap.gaps(real, lambda run_id: read_predictions(run_id, here), (metric,))
    return board.titled(table, models())


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


def state_of(key: str) -> str:
    """Return "ready", "bundled", "remote" (asked over the network) or "needs weights"."""
    return state(MODELS[key], settings().weights)


def seen(card: ModelCard) -> list[str]:
    """Return the data sets of the catalogue whose accession a model saw in pretraining."""
    return [key for key, dataset in DATASETS.items() if dataset.accession in card.pretrained_accessions]


def ranking(picks: Mapping[str, str]) -> pl.DataFrame:
    """Return the entries of one view of the leaderboard, best first; `picks` are words of the screen."""
    here = settings()
    view = {**picks, "metric": SHOWN[picks["metric"]]}
    return frames.ranking(_scores(here, stamp(here)), models(), **view)
