"""Transfer: trained on one data set, tested on another, for every pair; a click opens the pair."""

from __future__ import annotations

import streamlit as st
from scdrugmap.app import header, pickers, queries_views, sentences_views, views_transfer, widgets


def browse() -> None:
    made_up = widgets.toggle("Show simulated", "simulated", default=False, word="simulated")
    entries = queries_views.entries(made_up=made_up)
    if entries.is_empty():
        views_transfer.how_to_run("No model was trained on one data set and tested on another here.")
        return
    picks = pickers.transfer(entries)
    table, group = views_transfer.table_of(picks, made_up=made_up)
    train, test = views_transfer.asked()
    if train and test:
        widgets.back("All pairs", "train", "test")
        views_transfer.pair(table, train, test, picks)
        return
    st.markdown(sentences_views.transfer(table, picks))
    views_transfer.matrix(table, picks, made_up=made_up)
    views_transfer.pairs(table, picks)
    views_transfer.left_out(picks, group, made_up=made_up)


with header.page("transfer"):
    browse()
