"""Models: the leaderboard under one protocol at a time, and each model's card."""

from __future__ import annotations

import polars as pl
import streamlit as st
from scdrugmap.app import boards, cards, charts, header, pickers, queries, sentences, tables, views, widgets


def browse() -> None:
    board, known = queries.board(), queries.models()
    st.markdown(sentences.NEVER_ALONE)
    if board.is_empty():
        header.nothing_yet(
            "There are no scores on this machine yet.",
            "Run the benchmark on a labelled file.",
            "scdrugmap benchmark run --data mine.h5ad --model scgpt-mini",
        )
    else:
        picks = pickers.leaderboard(board)
        rows = pickers.shown(queries.ranking(picks))
        st.markdown(sentences.looking_at(picks, rows))
        tabs = st.tabs(["Ranking", "Split matters", "Reported"], key="view", bind="query-params")
        with tabs[0]:
            ranking(rows, known, picks)
        with tabs[1]:
            views.split_matters(board, picks["metric"])
        with tabs[2]:
            views.reported(board)
    st.subheader("All models", anchor="cards")
    widgets.table(tables.models(known), tables.models_columns(), "cards", opens="model", keys=known["model"].to_list())
    st.caption("Choose a row to open the model's card.")


def ranking(rows: pl.DataFrame, known: pl.DataFrame, picks: dict[str, str]) -> None:
    if rows.is_empty():
        header.nothing_yet(
            "Nothing was measured or reported under these choices.", "Choose another split, or show reported numbers."
        )
        return
    if (same := boards.at_constant(rows)).height:
        st.info(sentences.at_constant(same), icon=":material/lightbulb:")
    st.altair_chart(
        charts.ranking(pickers.named(rows), picks["metric"], header.ink()), alt="scores with intervals, best first"
    )
    header.caption(*sentences.ranking_caption(rows, picks, queries.date_of(rows["run_id"])))
    columns = tables.ranking_columns(picks["metric"])
    widgets.table(tables.ranking(rows, known), columns, "ranking", opens="run", keys=rows["run_id"].to_list())
    st.caption("Choose a row to open the record of its run.")


with header.page("models"):
    if widgets.opened("run"):
        widgets.back("Back to the leaderboard", "run")
        views.score(queries.board(), widgets.opened("run"))
    elif widgets.opened("model"):
        widgets.back("All models", "model")
        cards.model(queries.model(widgets.opened("model")), queries.state_of(widgets.opened("model")), queries.board())
    else:
        browse()
