"""One run in full: what it asked, every metric beside its constant, its data sets, its seeds, and the same entry."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.jobs import endpoints
from scdrugmap.app.runs import tables
from scdrugmap.app.runs import text as runs_text
from scdrugmap.app.ui import board as entries
from scdrugmap.app.ui import format, glossary, layout, queries, score_table, widgets
from scdrugmap.evaluation.results.run_record import FoldScores, Run


def score(board: pl.DataFrame, run_id: str) -> None:
    """Draw the run behind a number, or say that a paper states it; raises `UnknownName`."""
    rows = board.filter(pl.col("run_id") == run_id)
    if rows.height and rows["source"][0] == "reported":
        _stated(rows.row(0, named=True))
        return
    record = queries.run(run_id)
    experiment = record.experiment
    on = rows["on"][0] if rows.height else " + ".join(experiment.datasets)
    st.subheader(f"{queries.title_of(experiment.model, experiment.head)} on {on}", anchor=False)
    _question(record)
    if record.outcome.state == "failed":
        layout.nothing_yet("This run could not be done.", format.plain(record.outcome.reason))
        layout.remedy(format.plain(record.outcome.remedy))
    else:
        _scores(record)
    layout.cautions(record.outcome.warnings)
    _seeds(run_id)
    _elsewhere(board, record)
    with st.expander("Provenance", icon=":material/fingerprint:"):
        st.json(_plain(record))


def _stated(row: dict[str, Any]) -> None:
    st.subheader(f"{row['title']}: reported {row['metric'].upper()} {format.number(row['value'], 3)}", anchor=False)
    st.markdown(
        f"On {row['on']}, {row['protocol']}, {row['strategy']}. A paper states this number; there is no run behind it "
        f"here. Constant classifier: {format.number(row['constant'], 3)}."
    )
    _card(row["model"])


def _question(record: Run) -> None:
    experiment, outcome, usage = record.experiment, record.outcome, record.environment.asked
    widgets.facts({
        "Protocol": experiment.protocol, "Split by": glossary.split(experiment.split_by),
        "Strategy": experiment.strategy,
        "Trained on": ", ".join(experiment.train), "Shots": "" if experiment.shots is None else str(experiment.shots),
        "Cells": format.count(outcome.n_cells), "Samples": format.count(outcome.n_samples),
        "Duplicate cells removed": format.count(outcome.duplicates_removed),
        "Folds": experiment.folds, "Seed": str(experiment.seed),
        "Matrix": outcome.value_type, **(_asking(usage) if usage else {}),
    })  # fmt: skip
    _card(experiment.model)


def _asking(usage: dict[str, Any]) -> dict[str, str]:
    paid = f"{endpoints.usd(usage['usd'])} for {format.count(usage['requests'])} requests"
    return {"Asked": format.plain(f"{usage['name']} at {usage['host']}"), "Paid in this run": paid}


def _card(model: str) -> None:
    if model in queries.models()["model"].to_list():
        label = f"The card of {queries.model(model).title}: licence, input, weights, all its scores"
        widgets.turn(label, ":material/badge:", closes=("run",), model=model)


def _scores(record: Run) -> None:
    parts = [part for part in record.outcome.parts if not part.reason]
    whole = next((part for part in parts if part.fold == "all"), None)
    if whole:
        widgets.table(score_table.part(whole), score_table.score_columns(), "run_scores")
        layout.caption(*runs_text.run_caption(whole, record))
    alone = [part for part in _each(parts) if whole is None or part.test != whole.test]
    if alone:
        word = queries.asked_metric()
        st.markdown(f"##### Each data set by itself, {word}")
        shown = tables.parts(alone, queries.SHOWN[word])
        widgets.table(shown, score_table.parts_columns(word), "run_parts")


def _each(parts: list[FoldScores]) -> list[FoldScores]:
    """Return one part a data set: the fold that tested it alone before its share of the out-of-fold scores."""
    by_test: dict[tuple[str, ...], FoldScores] = {}
    for part in sorted(parts, key=lambda part: (part.fold.startswith("dataset:"), part.fold)):
        if len(part.test) == 1 and part.fold in (part.test[0], f"dataset:{part.test[0]}"):
            by_test.setdefault(part.test, part)
    return list(by_test.values())


def _seeds(run_id: str) -> None:
    word = queries.asked_metric()
    rows = queries.seeds(run_id, queries.SHOWN[word])
    if rows.height < 2:
        return
    st.markdown(f"##### The {rows.height} runs behind the mean, {word}")
    widgets.table(rows, tables.seeds_columns(word), "run_seeds", opens="run", keys=rows["run_id"].to_list())


def _elsewhere(board: pl.DataFrame, record: Run) -> None:
    """List what the same entry scored on other cells and splits; a row opens its run."""
    experiment, word = record.experiment, queries.asked_metric()
    same = board.filter(
        pl.col("source") != "reported", model=experiment.model, head=experiment.head, strategy=experiment.strategy,
        metric=queries.SHOWN[word],
    )  # fmt: skip
    shown = score_table.scores_of(entries.others(same, record.run_id))
    if shown.is_empty():
        return
    st.markdown(f"##### The same entry elsewhere, {word}")
    columns = score_table.scores_of_columns(word)
    widgets.table(shown, columns, "elsewhere", opens="run", keys=shown["run_id"].to_list())
    st.caption("Means over seeds. Choose a row to open the first of its runs.")


def _plain(record: Run) -> dict[str, Any]:
    whole = json.loads(record.to_json())
    return {"run_id": whole["run_id"], "experiment": whole["experiment"], "environment": whole["environment"]}
