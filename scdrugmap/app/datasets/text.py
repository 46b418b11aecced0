"""Sentences of the catalogue, made of the numbers they stand beside."""

from __future__ import annotations

import polars as pl

from scdrugmap.app.ui.format import count
from scdrugmap.data.catalog.catalog import CellCount


def catalogue_sentence(rows: pl.DataFrame, of: int, cells: int) -> str:
    """Say how much of the catalogue the filters leave."""
    return (
        f"**{rows.height} of {of}** data sets · **{count(cells)}** cells · **{rows['accession'].n_unique()}** "
        "studies · "
        f"**{int(rows['built'].sum())}** built on this machine"
    )


def catalogue_caption(rows: pl.DataFrame, cells: CellCount) -> list[str]:
    """Caption of the figures of the catalogue."""
    missing = len(cells.uncounted)
    return [
        f"{rows.height} data sets, {count(cells.total)} cells as the study's supplementary tables count them",
        "cells that data sets share count in each",
        f"no source gives the cells of {missing} of them" if missing else "",
    ]
