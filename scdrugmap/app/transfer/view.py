"""The transfer page's parts: the matrix, the bars under it, and one pair in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.transfer import frames, tables
from scdrugmap.app.transfer import queries as transfer_queries
from scdrugmap.app.transfer import text as transfer_text
from scdrugmap.app.ui import format, glossary, layout, queries, score_table, widgets
from scdrugmap.evaluation.analysis.transfer_matrix import difference
from scdrugmap.plots import predictions, transfer

HOW_TO_RUN = "scdrugmap benchmark run --plan transfer.toml"
PLAN = """\
# transfer.toml, beside the labelled files: each data set trains once, and every other one tests
title = "Transfer between my data sets"
[data.mine]
files = ["*.h5ad"]
[[ask]]
models = ["hvg", "scgpt-mini"]
protocol = "cross-data"
split_by = "study"
train = "each"
"""
Picks = Mapping[str, Any]


def how_to_run(what: str) -> None:
    """Draw the empty state: the plan that fills the matrix, and the command that runs it."""
    with st.container(border=True):
        st.markdown(f"**{what}**")
        st.markdown("Bring two labelled data sets or more, keep this as a plan, and run it.")
        st.code(PLAN, language="toml")
        st.code(HOW_TO_RUN, language="bash")


def table_of(picks: Picks, *, simulated: bool) -> tuple[pl.DataFrame, str]:
    """Return the matrix of the chosen entry, of some data sets only where a group is chosen, and that group."""
    table = transfer_queries.matrix(queries.SHOWN[picks["metric"]], simulated=simulated, **picks["view"])
    groups = transfer_queries.groups(table["train"].unique().sort().to_list())
    options = [widgets.ANY, *groups]
    chosen = widgets.choose("Data sets", options, "sets", word="facet", place=picks["place"]) if groups else widgets.ANY
    members = groups.get(chosen, table["train"].unique().to_list())
    return table.filter(pl.col("train").is_in(members), pl.col("test").is_in(members)), chosen


def matrix(table: pl.DataFrame, picks: Picks, *, simulated: bool) -> None:
    """Draw the matrix, or its difference to another entry's; a click on a cell opens the pair."""
    names = transfer_queries.ordered(table, picks["order"])
    ink, metric = layout.ink(), picks["metric"]
    if picks["other"]:
        key = queries.SHOWN[metric]
        other = transfer_queries.matrix(key, simulated=simulated, datasets=names, **picks["other"])
        frame = frames.compared(difference(table, other, key))
        words_of = {"against": picks["with"], "undecided": "intervals overlap", "number": "shade"}
    else:
        frame = frames.drawn(transfer_queries.trained(table))
        words_of = {"against": "the constant", "undecided": "interval holds the constant"}
    chart = transfer.matrix(frame, names, metric, ink, **words_of)
    st.altair_chart(
        chart, key="matrix", on_select=lambda: _opened(names), selection_mode=transfer.PAIR,
        alt=f"{metric} of {picks['entry']}, trained on the row and tested on the column",
    )  # fmt: skip
    date = queries.date_of(table["run_id"].drop_nulls())
    layout.caption(*transfer_text.matrix_caption(table, picks, date, simulated=simulated))


def _opened(names: list[str]) -> None:
    """Put the clicked pair into the URL; a click on a mean or on the diagonal opens nothing."""
    selected = st.session_state["matrix"]["selection"].get(transfer.PAIR) or []
    pair = selected[0] if selected else {}
    train, test = pair.get("train"), pair.get("test")
    if train in names and test in names and train != test:
        st.query_params["train"], st.query_params["test"] = train, test


def pairs(table: pl.DataFrame, picks: Picks) -> None:
    """List the pairs, worst against their constant last; a row opens the pair, which a finger may find easier."""
    rows = frames.best_first(table)
    keys = [f"{train}\t{test}" for train, test in rows.select("train", "test").iter_rows()]
    with st.expander(f"All {rows.height} pairs as a table", icon=":material/table_rows:"):
        widgets.table(tables.pairs(rows), tables.pairs_columns(picks["metric"]), "pairs", opens="pair",
                      keys=keys, height=420)  # fmt: skip


def opened_pair() -> tuple[str, str]:
    """Return the pair that the URL asks for, two empty strings where it asks for none."""
    train, tab, test = widgets.opened("pair").partition("\t")
    if tab:
        st.query_params["train"], st.query_params["test"] = train, test
        widgets.close("pair")
    return widgets.opened("train"), widgets.opened("test")


def left_out(picks: Picks, group: str, *, simulated: bool) -> None:
    """Draw how each data set of the chosen group is called by what has seen all others."""
    st.subheader("Trained on all the others", anchor="left-out", help=glossary.tip("protocol"))
    view = {name: word for name, word in picks["view"].items() if name != "split_by"}
    rows = transfer_queries.held_out(queries.SHOWN[picks["metric"]], simulated=simulated, **view)
    bars = frames.left_out(rows)
    bars = bars.filter([transfer_queries.belongs(name, group) for name in bars["title"]])
    if bars.is_empty():
        layout.nothing_yet(
            "No data set was left out in turn with this model.",
            "One run trains on all data sets but one, and tests the one, for each of them.",
            "scdrugmap benchmark run --data one.h5ad --data two.h5ad --data three.h5ad --model scgpt-mini "
            "--protocol cross-data --split-by study",
        )
        return
    st.altair_chart(
        transfer.left_out(bars, picks["metric"], layout.ink()),
        alt="each data set by a model that saw the others",
    )
    date = queries.date_of(bars["run_id"])
    layout.caption(*transfer_text.left_out_caption(bars, picks, date, simulated=simulated))
    with st.expander(f"All {bars.height} bars as a table", icon=":material/table_rows:"):
        columns = tables.left_out_columns(picks["metric"])
        widgets.table(tables.left_out(bars.sort("shade", descending=True)), columns, "left_out")


def pair(table: pl.DataFrame, train: str, test: str, picks: Picks) -> None:
    """Draw one pair in full: the score beside its constant, who was called what, the curves, the record."""
    st.subheader(f"{train} → {test}", anchor=False)
    rows = table.filter(train=train, test=test)
    if rows.is_empty() or rows["run_id"].item() is None or rows["state"].item() != "measured":
        _without_score(rows, picks)
        return
    row = transfer_queries.trained(rows).row(0, named=True)
    st.markdown(transfer_text.pair(row, picks))
    run_id = _seed(queries.seeds(row["run_id"], queries.SHOWN[picks["metric"]], test))
    record = queries.run(run_id or row["run_id"])
    part = max((fold for fold in record.outcome.parts if fold.test == (test,)), key=lambda fold: fold.n_train)
    widgets.facts({
        "Trained on": f"{format.count(part.n_train)} cells" if part.n_train else "",
        "Tested on": f"{format.count(part.n)} cells",
        "Sensitive among them": format.percent(part.prevalence),
        "Copies kept out of training": format.count(part.left_out),
        "Interval over": f"{part.n_units} {part.unit}s" if part.unit else "",
    })  # fmt: skip
    _scores_of_cells(record.run_id, test)
    widgets.table(score_table.part(part), score_table.score_columns(), "pair_scores")
    simulated = record.is_simulated((train, test))
    layout.caption(*transfer_text.pair_caption(row, picks, part, record.environment.date[:10], simulated=simulated))
    rest = [name for name in record.experiment.datasets if name not in (train, test)]
    layout.cautions([warning for warning in record.outcome.warnings if not any(name in warning for name in rest)])
    st.link_button("Open the record of the run", f"models?run={record.run_id}", icon=":material/fingerprint:")


def _seed(runs: pl.DataFrame) -> str:
    """Ask of which seed's run the figures shall be; return its run, empty where there is none."""
    if runs.height < 2:
        return runs["run_id"][0] if runs.height else ""
    seeds = [str(seed) for seed in runs["seed"]]
    chosen = widgets.switch("Figures of the run with seed", seeds, "seed", word="seed")
    return str(runs["run_id"][seeds.index(chosen)])


def _without_score(rows: pl.DataFrame, picks: Picks) -> None:
    if rows.is_empty():
        layout.nothing_yet("There is no such pair under these choices.", "Choose another model or split, or go back.")
        return
    state, reason = rows["state"].item(), rows["reason"].item()
    sentences = {"not run": "This pair was not run.", "itself": "A data set is not tested on itself here."}
    if state == "not run":
        how_to_run(sentences[state])
        return
    run_id = rows["run_id"].item()
    layout.nothing_yet(
        sentences.get(state, f"This pair has no {picks['metric']}: {state}."),
        format.plain(reason) or "The measured pairs are those with a number.",
    )
    if run_id:
        if remedy := transfer_queries.remedy_of(run_id):
            layout.remedy(format.plain(remedy))
        st.link_button("Open the record of the run", f"models?run={run_id}", icon=":material/fingerprint:")


def _scores_of_cells(run_id: str, test: str) -> None:
    cut = widgets.threshold()
    ink = layout.ink()
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("##### Who was called what", help=glossary.tip("response"))
        st.altair_chart(
            predictions.confusion(transfer_queries.confusion(run_id, test, cut), ink), alt="confusion matrix"
        )
    with right:
        st.markdown("##### P(resistant) by sample", help=glossary.tip("P(resistant)"))
        spread = transfer_queries.by_sample(run_id, test)
        with st.container(height=620 if spread.height > 22 else "content", border=False):
            st.altair_chart(predictions.by_sample(spread, cut, ink), alt="spread of P(resistant) by sample")
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("##### ROC", help=glossary.tip("constant"))
        _curve(transfer_queries.roc(run_id, test), ("false positive rate", "true positive rate"), "chance")
    with right:
        st.markdown("##### Precision and recall", help=glossary.tip("F1"))
        _curve(transfer_queries.precision_recall(run_id, test), ("recall", "precision"), "share of sensitive cells")


def _curve(frame: pl.DataFrame, titles: tuple[str, str], level: str) -> None:
    if frame.is_empty():
        st.markdown("The tested cells are of one class: there is no curve.")
        return
    st.altair_chart(predictions.curve(frame, titles, level, layout.ink()), alt=f"{titles[1]} against {titles[0]}")
