"""Datasets: the catalogue of 60, what their labels can show, and each one's card."""

from __future__ import annotations

import polars as pl
import streamlit as st
from scdrugmap.app.datasets import queries as datasets_queries
from scdrugmap.app.datasets import tables, view
from scdrugmap.app.datasets import text as datasets_text
from scdrugmap.app.ui import layout, queries, widgets
from scdrugmap.plots import catalogue as catalogue_plots

FILTERS = {
    "collection": ("Collection", "collection"),
    "cancer_group": ("Cancer", ""),
    "tissue": ("Tissue", ""),
    "drug_type": ("Drug type", ""),
    "drugs": ("Drug", ""),
    "label_basis": ("Label basis", "label basis"),
}
CHARTS = ["By cancer", "Drug type and tissue", "Timeline"]


def browse(catalogue: pl.DataFrame) -> None:
    rows = ask(catalogue)
    st.markdown(datasets_text.catalogue_sentence(rows, catalogue.height, queries.count_cells(rows).total))
    if rows.is_empty():
        layout.nothing_yet("No data set has all of these.", "Take a filter away, or search for another word.")
        return
    draw(rows)
    widgets.table(
        tables.catalogue(rows),
        tables.catalogue_columns(),
        "catalogue",
        opens="dataset",
        keys=rows["key"].to_list(),
        height=560,
    )
    st.caption("Choose a row to open its card. The link in the address bar opens this view for others.")


def ask(catalogue: pl.DataFrame) -> pl.DataFrame:
    with st.container(key="two_filters"):
        places = [*st.columns(4), *st.columns(4)]
    chosen = {
        column: widgets.several(label, tables.values(catalogue, column), column, word=word, place=place)
        for place, (column, (label, word)) in zip(places, FILTERS.items(), strict=False)
    }
    flags = widgets.several(
        "Flags", [*tables.values(catalogue, "flags"), tables.BUILT], "flags", word="confounded", place=places[6]
    )
    text = widgets.search("Search", "search", "accession, drug, cancer …", place=places[7])
    return tables.filtered(catalogue, chosen, flags, text)


def draw(rows: pl.DataFrame) -> None:
    ink = layout.ink()
    by_cancer, by_tissue, when = st.tabs(
        ["By cancer", "Drug type and tissue", "Timeline"], key="chart", bind="query-params"
    )
    with by_cancer:
        st.altair_chart(
            catalogue_plots.cells_by(datasets_queries.cells_by(rows, "cancer_group"), ink),
            alt="cells by cancer type and response",
        )
    with by_tissue:
        st.altair_chart(catalogue_plots.coverage(rows, ink), alt="data sets by drug type and tissue")
    with when:
        st.altair_chart(catalogue_plots.timeline(rows, ink), alt="data sets by day of publication")
    layout.caption(*datasets_text.catalogue_caption(rows, queries.count_cells(rows)))


with layout.page("datasets"):
    catalogue, key = queries.catalogue(), widgets.opened("dataset")
    if key:
        widgets.back("All data sets", "dataset")
        view.dataset(datasets_queries.dataset(key), queries.is_built(key))
    else:
        browse(catalogue)
