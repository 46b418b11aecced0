"""Home: the question, how good the answer really is, where to go, what is installed here."""

from __future__ import annotations

import streamlit as st
from scdrugmap.app.home import queries as home_queries
from scdrugmap.app.home import text
from scdrugmap.app.pages import PAGES
from scdrugmap.app.ui import board as entries
from scdrugmap.app.ui import format, glossary, layout, queries, sentence
from scdrugmap.plots import scores

METRIC = "F1"

with layout.page("home"):
    st.title("Which cells of this tumour will resist?", anchor=False)
    st.html(
        '<div class="sdm-big">scDrugMap scores every cell of a single-cell RNA-seq file for drug resistance with a '
        "foundation model, and shows how far that model can be trusted: the usual score beside the leak-safe one, "
        "with baselines "
        "and intervals. It is a research tool. It is not a clinical test, and no score here may guide a "
        "treatment.</div>"
    )
    with st.container(horizontal=True, gap="small"):
        if st.button("Predict on your data", type="primary", icon=PAGES["predict"].icon, key="go_predict"):
            st.switch_page(PAGES["predict"].file)
        if st.button("Explore the benchmark", icon=PAGES["models"].icon, key="go_models"):
            st.switch_page(PAGES["models"].file)

    st.subheader("How good is it really?", anchor="how-good", help=glossary.tip("leakage gap"))
    board = queries.board()
    rows = entries.headline(board, metric=queries.SHOWN[METRIC])
    if rows.is_empty():
        layout.nothing_yet(
            "Nothing has been measured on this machine yet.",
            "Run the benchmark on a labelled file, once by cell and once by sample, and the comparison appears here.",
            "scdrugmap benchmark run --data mine.h5ad --model scgpt-mini --split-by sample",
        )
    else:
        with st.container(border=True):
            st.markdown(text.headline(rows, METRIC))
            st.altair_chart(
                scores.dumbbell(rows.sort("safe", descending=True), METRIC, layout.ink()),
                alt="F1 by cell and leak-safe, per model",
            )
            rule = queries.rule(queries.SHOWN[METRIC])
            date, samples = queries.date_of(rows["run_id"]), queries.samples_of(rows["run_id"])
            layout.caption(*sentence.headline_caption(rows, METRIC, date, rule, samples))
            st.page_link(
                PAGES["models"].file, label="Every score behind this figure, and its runs", icon=PAGES["models"].icon,
                query_params={"protocol": "pooled", "facet": rows["facet"][0], "on": rows["on"][0], "metric": METRIC},
            )  # fmt: skip
    with st.expander("Why do the two differ?", icon=":material/help:"):
        st.markdown(sentence.WHY_THE_TWO_DIFFER)

    st.subheader("What there is", anchor=False)
    sets, known = queries.catalogue(), queries.models()
    counters = (
        (f"{sets.height}", "data sets", "datasets"),
        (format.count(queries.count_cells(sets).total), "labelled cells", "datasets"),
        (f"{sets['cancer_group'].n_unique()}", "cancer types", "datasets"),
        (f"{known.height}", "models and baselines", "models"),
    )
    with st.container(key="two_counters"):
        places = st.columns(4)
    for column, (value, what, page) in zip(places, counters, strict=True):
        column.html(f'<div class="sdm-count">{value}</div>')
        column.page_link(PAGES[page].file, label=what, icon=PAGES[page].icon)

    st.subheader("What is installed here", anchor=False)
    st.markdown(text.installed(home_queries.installed(), queries.device()))
