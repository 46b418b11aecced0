"""Cached reads of the first page."""

from __future__ import annotations

from typing import Any

import polars as pl

from scdrugmap.app.ui.queries import catalogue, models, runs


def installed() -> dict[str, Any]:
    """Return what is here: models ready, asked elsewhere and missing, data sets built, runs and the last one's day."""
    known, done = models(), runs()
    return {
        "ready": known.filter(pl.col("state").is_in(["ready", "bundled"]))["title"].to_list(),
        "remote": known.filter(pl.col("state") == "remote")["title"].to_list(),
        "missing": known.filter(pl.col("state") == "needs weights")["title"].to_list(),
        "built": int(catalogue()["built"].sum()),
        "runs": done.filter(pl.col("state") == "done").height,
        "measured": max(done["date"], default="")[:10],
    }
