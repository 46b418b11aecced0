"""Cached reads of the catalogue."""

from __future__ import annotations

import polars as pl

from scdrugmap.data.catalog.card import DatasetCard
from scdrugmap.data.catalog.catalog import DATASETS, cell_count


def cells_by(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return cells by response and the number of data sets per value of a column; see `plots.catalogue.cells_by`."""
    groups = []
    for (value,), part in rows.group_by(column, maintain_order=True):
        counts = cell_count(part["key"])
        uncounted = len(counts.uncounted)
        groups.append((str(value), part.height, counts.sensitive, counts.resistant, uncounted))
    return pl.DataFrame(groups, schema=["group", "datasets", "sensitive", "resistant", "uncounted"], orient="row")


def dataset(key: str) -> DatasetCard:
    """Return the card of a data set; raises `UnknownName`."""
    return DATASETS[key]
