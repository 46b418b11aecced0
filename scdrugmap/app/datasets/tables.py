"""The catalogue as a table: which rows, which columns, how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui.glossary import tip
from scdrugmap.data.catalog.card import CONFIDENCE
from scdrugmap.plots.palette import SENSITIVE_COLOUR

CONFIDENCE_TIP = "How far the label can be taken as resistance. " + " ".join(
    f"{level}: {rule}." for level, rule in CONFIDENCE.items()
)


SEARCHED = ("key", "accession", "cancer_type", "cancer_subtype", "regimen", "tissue", "drug_type")


BUILT = "built here"


def values(frame: pl.DataFrame, column: str) -> list[str]:
    """Return what a filter may offer: the different values of a column, or of its lists."""
    entries = frame[column].explode() if frame.schema[column] == pl.List(pl.String) else frame[column]
    return entries.drop_nulls().unique().sort().to_list()


def filtered(
    catalogue: pl.DataFrame, chosen: Mapping[str, Sequence[str]], wanted: Sequence[str], text: str
) -> pl.DataFrame:
    """Keep data sets with one of the chosen values per column, all wanted flags, and every word of `text`."""
    rows = catalogue
    for column, picked in chosen.items():
        if picked and rows.schema[column] == pl.List(pl.String):
            rows = rows.filter(pl.col(column).list.set_intersection(list(picked)).list.len() > 0)
        elif picked:
            rows = rows.filter(pl.col(column).is_in(list(picked)))
    for flag in wanted:
        rows = rows.filter(pl.col("built") if flag == BUILT else pl.col("flags").list.contains(flag))
    haystack = pl.concat_str(
        [pl.col(c).cast(pl.String).fill_null("") for c in SEARCHED if c in rows.columns], separator=" "
    )
    for word in text.lower().split():
        rows = rows.filter(haystack.str.to_lowercase().str.contains(word, literal=True))
    return rows


def catalogue(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of the catalogue that stand on screen, what matters most first."""
    samples = pl.format(
        "{} / {}", pl.col("samples_sensitive").fill_null("?"), pl.col("samples_resistant").fill_null("?")
    )
    return rows.with_columns(sensitive=100 * pl.col("share_sensitive"), samples=samples).select(
        "key", "cancer_type", "regimen", "cells", "sensitive", "samples", "label_basis", "confidence", "flags",
        "tissue", "built",
    )  # fmt: skip


def catalogue_columns() -> dict[str, Any]:
    """Return how the columns of the catalogue are headed and written; widths in px fit a page of 1240."""
    column = st.column_config
    return {
        "key": column.TextColumn("Data set", width=165, pinned=True, help=tip("data set")),
        "cancer_type": column.TextColumn("Cancer", width=125),
        "regimen": column.TextColumn("Drug", width=165),
        "tissue": column.TextColumn("Tissue", width=140),
        "cells": column.NumberColumn("Cells", format="localized", width=65),
        "sensitive": column.ProgressColumn(
            "% sensitive",
            format="%.0f %%",
            min_value=0,
            max_value=100,
            color=SENSITIVE_COLOUR,
            help=tip("response"),
            width=95,
        ),
        "samples": column.TextColumn("S / R", width=50, help="Samples labelled sensitive / resistant."),
        "label_basis": column.TextColumn("Label basis", width=110, help=tip("label basis")),
        "confidence": column.TextColumn("Confidence", width=85, help=CONFIDENCE_TIP),
        "flags": column.ListColumn("Flags", width=190, help=f"{tip('confounded')} {tip('shared controls')}"),
        "built": column.CheckboxColumn("Built", width=60, help="Whether its cells are on this machine."),
    }
