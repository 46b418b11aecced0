"""One record in full: the card of a data set, the card of a model."""

from __future__ import annotations

import polars as pl
import streamlit as st

from scdrugmap.app.ui import format, glossary, layout, widgets
from scdrugmap.data.catalog.card import CONFIDENCE, DatasetCard
from scdrugmap.plots import catalogue


def dataset(card: DatasetCard, built: bool) -> None:
    """Draw the card of a data set: warnings first, then what its labels rest on."""
    st.subheader(card.title, anchor=False)
    st.markdown(f"{card.cancer_subtype} · {card.material} · {card.tissue} · {card.drug_type}")
    with st.container(horizontal=True, vertical_alignment="center"):
        if card.geo_url:
            st.link_button("GEO", card.geo_url, icon=":material/open_in_new:")
        if card.pubmed_url:
            st.link_button("PubMed", card.pubmed_url, icon=":material/open_in_new:")
        st.code(card.key, language=None, width="content")
    for warning in card.warnings:
        st.warning(warning, icon=":material/warning:")
    left, right = st.columns(2, gap="large")
    with left:
        _balance(card)
    with right:
        _samples(card)
    st.markdown("##### Where it comes from")
    widgets.facts(
        {
            "Accession": card.accession + (f", {card.subgroup}" if card.subgroup else ""),
            "Collection": card.collection + (", also in the preprint's" if card.in_preprint else ""),
            "Public since": f"{card.public_since:%d %b %Y}",
            "Label basis": card.label_basis,
            "Confidence in the label": f"{card.confidence}: {CONFIDENCE[card.confidence]}",
            "Label level": f"{card.label_level}: every cell inherits it",
            "Time point": card.time_point or "before and after",
            "Protocol": card.protocol,
            "Processing": card.processing,
            "Reads": card.raw_data,
            "Organism": card.organism,
            "Cell counts": card.cells_source or "",
        }
    )
    _corrections(card)
    _cells_here(card, built)


def _balance(card: DatasetCard) -> None:
    st.markdown("##### Label balance", help=glossary.tip("response"))
    if card.cells_sensitive is None or card.cells_resistant is None:
        st.markdown("The source does not say how many cells of each response there are.")
        return
    ink = layout.ink()
    st.altair_chart(catalogue.balance(card.cells_sensitive, card.cells_resistant, ink), alt="label balance")
    layout.caption(
        f"{format.count(card.cells)} cells: {format.count(card.cells_sensitive)} sensitive, "
        f"{format.count(card.cells_resistant)} resistant",
        f"calling every cell sensitive scores F1 {format.number(format.constant_f1(card.share_sensitive))}",
    )


def _samples(card: DatasetCard) -> None:
    st.markdown("##### Samples", help=glossary.tip("confounded"))
    rows = [("sensitive", i) for i in range(card.samples_sensitive)] + [
        ("resistant", i) for i in range(card.samples_resistant)
    ]
    frame = pl.DataFrame(rows, schema=["response", "sample"], orient="row")
    st.altair_chart(catalogue.samples(frame, layout.ink()), alt="samples of each response")
    layout.caption(f"{card.samples_sensitive} sensitive and {card.samples_resistant} resistant samples, one dot each")


def _corrections(card: DatasetCard) -> None:
    for note in card.notes:
        st.info(note, icon=":material/info:")
    if card.corrections:
        st.markdown("##### Corrections to the source's table", help=glossary.tip("corrected"))
        rows = [
            {
                "field": c.field.replace("_", " "),
                "published": str(c.published),
                "corrected": str(c.corrected),
                "why": c.why,
            }
            for c in card.corrections
        ]
        st.table(rows)


def _cells_here(card: DatasetCard, built: bool) -> None:
    st.markdown("##### Its cells")
    if built:
        st.markdown("They are on this machine, under the key of this card. Benchmark them:")
        st.code(
            f"scdrugmap benchmark run --data {card.key} --model scgpt-mini --split-by sample",
            language="bash",
            wrap_lines=True,
        )
        return
    st.markdown(
        "They are not on this machine: this repository carries the catalogue, not the cells. Download the accession, "
        f"label its samples as above, and save it as `{card.key}.h5ad`; this checks it:"
    )
    st.code(f"scdrugmap data validate {card.key}.h5ad", language="bash", wrap_lines=True)
