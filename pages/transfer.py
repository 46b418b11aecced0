"""Transfer: trained on one data set, tested on another, for every pair; a click opens the pair."""

from __future__ import annotations

import streamlit as st
from scdrugmap.app.transfer import filters as transfer_filters
from scdrugmap.app.transfer import queries as transfer_queries
from scdrugmap.app.transfer import text as transfer_text
from scdrugmap.app.transfer import view
from scdrugmap.app.ui import layout, widgets


def browse() -> None:
    simulated = widgets.toggle("Show simulated", "simulated", default=False, word="simulated")
    entries = transfer_queries.entries(simulated=simulated)
    if entries.is_empty():
        view.how_to_run("No model was trained on one data set and tested on another here.")
        return
    picks = transfer_filters.transfer(entries)
    table, group = view.table_of(picks, simulated=simulated)
    train, test = view.opened_pair()
    if train and test:
        widgets.back("All pairs", "train", "test")
        view.pair(table, train, test, picks)
        return
    st.markdown(transfer_text.transfer(table, picks))
    view.matrix(table, picks, simulated=simulated)
    view.pairs(table, picks)
    view.left_out(picks, group, simulated=simulated)


with layout.page("transfer"):
    browse()
