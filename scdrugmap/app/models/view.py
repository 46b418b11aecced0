"""The views beside the ranking: what the split does, what the paper's numbers stand against, one run in full."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import streamlit as st

from scdrugmap.app.models import filters, frames, tables, text
from scdrugmap.app.models import queries as models_queries
from scdrugmap.app.models import tables as models_tables
from scdrugmap.app.ui import board as entries
from scdrugmap.app.ui import glossary, layout, queries, sentence, widgets
from scdrugmap.plots import base, scores

SETS = 6  # sets of cells whose splits are compared at first


def ranking(rows: pl.DataFrame, picks: Mapping[str, str]) -> None:
    """Draw the entries of one view, best first, and the table behind it; a row opens its run."""
    if rows.is_empty():
        layout.nothing_yet(
            "Nothing was measured or reported under these choices.",
            "Choose another split, show reported numbers, or measure it:",
            f"scdrugmap benchmark run --data mine.h5ad --model scgpt-mini --split-by {picks['split_by']}",
        )
        return
    if (same := frames.at_constant(rows)).height:
        st.info(text.at_constant(same), icon=":material/lightbulb:")
    key = queries.SHOWN[picks["metric"]]
    chart = scores.ranking(filters.named(rows), picks["metric"], layout.ink())
    st.altair_chart(chart, alt="scores with intervals, best first")
    date, samples = queries.date_of(rows["run_id"]), queries.samples_of(rows["run_id"])
    layout.caption(*text.ranking_caption(rows, picks, date, queries.rule(key), samples))
    view = {"protocol": picks["protocol"], "split_by": picks["split_by"]}
    won = models_queries.won(queries.SHOWN[picks["metric"]], shots=frames.words_of(picks["shots"]), **view)
    columns = tables.ranking_columns(picks["metric"])
    shown = tables.ranking(filters.named(rows), queries.models(), won, models_queries.speeds())
    widgets.table(shown, columns, "ranking", opens="run", keys=rows["run_id"].to_list())
    st.caption("Choose a row to open its card: every metric, each data set, all seeds, and the record of its run.")


def split_matters(board: pl.DataFrame, picks: Mapping[str, str]) -> None:
    """Draw the split by cell beside the leak-safe one, one set of cells at a time."""
    metric, key = picks["metric"], queries.SHOWN[picks["metric"]]
    st.caption(text.follows("the metric and the strategy", "every set of cells that was split both ways"))
    chosen = frames.pick(board.filter(pl.col("source") == "measured"), strategy=picks["strategy"])
    both = entries.pairs(chosen, metric=key)
    if both.is_empty():
        layout.nothing_yet(
            "No model was measured both by cell and leak-safe on the same cells.",
            "Run the same benchmark a second time with another split.",
            "scdrugmap benchmark run --data mine.h5ad --model scgpt-mini --split-by sample",
        )
        return
    both = frames.with_gaps(both.sort("n", descending=True, maintain_order=True), models_queries.gaps(key))
    groups = list(both.group_by("on", "safe_name", maintain_order=True))
    for (on, safe_name), part in widgets.first(groups, "sets of cells", SETS):
        rows = filters.named(part)
        st.markdown(f"**{on}**")
        st.altair_chart(scores.dumbbell(rows, metric, layout.ink()), alt=f"{metric} by cell and by {safe_name}")
        date, samples = queries.date_of(rows["run_id"]), queries.samples_of(rows["run_id"])
        layout.caption(*sentence.headline_caption(rows, metric, date, queries.rule(key), samples))
        with st.expander("Leakage gaps with their intervals", icon=":material/table_rows:"):
            columns = models_tables.gaps_columns(metric, str(safe_name))
            keys = rows["run_id"].to_list()
            widgets.table(models_tables.gaps(rows), columns, f"gaps {on} {safe_name}", opens="run", keys=keys)
            st.caption(text.gap_note(rows))
    st.markdown(sentence.WHY_THE_TWO_DIFFER)


def reported(board: pl.DataFrame) -> None:
    """Draw every number that the paper states beside the constant classifier of its stratum."""
    rows = board.filter((pl.col("source") == "reported") & pl.col("constant").is_not_null())
    if rows.is_empty():
        layout.nothing_yet("There are no reported numbers here.", "They come with the package; install it again.")
        return
    same = frames.at_constant(rows)
    if same.height:
        st.info(text.at_constant(same), icon=":material/lightbulb:")
    st.caption(text.follows("none", "every F1 that the paper states"))
    rows = frames.stated(rows.sort("value", descending=True))
    span = base.domain(rows, ("value", "constant"))
    for protocol in rows["protocol"].unique().sort(descending=True):
        part = rows.filter(pl.col("protocol") == protocol)
        st.markdown(f"**{protocol}**, F1 as the paper states it", help=glossary.tip("protocol"))
        st.altair_chart(scores.ranking(part, "F1", layout.ink(), span), alt=f"reported F1, {protocol}")
    layout.caption(*text.reported_caption(rows))
