"""Models: the leaderboard under one protocol at a time, what stands behind it, and each model's card."""

from __future__ import annotations

import polars as pl
import streamlit as st
from scdrugmap.app.models import card, filters, tables, tabs, text, view
from scdrugmap.app.models import queries as models_queries
from scdrugmap.app.runs import view as run_view
from scdrugmap.app.ui import layout, queries, share, widgets

TABS = ["Ranking", "Split matters", "By facet", "Few-shot", "Calibration", "Significance", "Cost", "Reported"]


def browse() -> None:
    board, known = queries.board(), queries.models()
    st.markdown(text.NEVER_ALONE)
    if board.is_empty():
        layout.nothing_yet(
            "There are no scores on this machine yet.",
            "Run the benchmark on a labelled file.",
            "scdrugmap benchmark run --data mine.h5ad --model scgpt-mini",
        )
    else:
        picks, kinds = filters.leaderboard(board), filters.kinds()
        rows = models_queries.ranking(picks).filter(pl.col("source").is_in(kinds))
        sentence = text.looking_at(picks, rows)
        st.markdown(sentence)
        share.view(sentence, picks)
        draw(board, rows, picks, kinds)
    st.subheader("All models", anchor="cards")
    widgets.table(tables.models(known), tables.models_columns(), "cards", opens="model",
                  keys=known["model"].to_list())  # fmt: skip
    st.caption("Choose a row to open the model's card.")


def draw(board: pl.DataFrame, rows: pl.DataFrame, picks: dict[str, str], kinds: list[str]) -> None:
    simulated = "simulated" in kinds and "measured" not in rows["source"].to_list()
    drawn = {
        "Ranking": lambda: view.ranking(rows, picks),
        "Split matters": lambda: view.split_matters(board, picks),
        "By facet": lambda: tabs.by_facet(picks, kinds),
        "Few-shot": lambda: tabs.few_shot(picks, simulated=simulated),
        "Calibration": lambda: tabs.calibration(rows),
        "Significance": lambda: tabs.significance(picks, simulated=simulated),
        "Cost": lambda: tabs.cost(tabs.priced(rows, picks), picks),
        "Reported": lambda: view.reported(board),
    }
    for name, tab in zip(TABS, st.tabs(TABS, key="view", bind="query-params"), strict=True):
        if tab.open:
            with tab:
                drawn[name]()


with layout.page("models"):
    if widgets.opened("run"):
        widgets.back("Back to the model" if widgets.opened("model") else "Back to the leaderboard", "run")
        run_view.score(queries.board(), widgets.opened("run"))
    elif widgets.opened("model"):
        widgets.back("All models", "model")
        key = widgets.opened("model")
        card.model(queries.model(key), models_queries.state_of(key), queries.board(), queries.asked_metric())
    else:
        browse()
