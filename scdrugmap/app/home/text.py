"""Sentences of the first page, made of the numbers they stand beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from scdrugmap.app.ui.format import number


def headline(rows: pl.DataFrame, metric: str) -> str:
    """Say what the figure on the first page shows."""
    best = rows.filter(pl.col("kind") != "baseline").head(1)
    best = best if best.height else rows.head(1)
    title, by_cell, safe, constant = (best[c].item() for c in ("title", "by_cell", "safe", "constant"))
    base = rows.filter(pl.col("kind") == "baseline").head(1)
    verdict = "above" if round(safe, 2) > round(constant, 2) else "not above"  # as printed: 0.80 is not above 0.80
    text = (
        f"Split by cell, as in the paper, **{title}** scores {metric} **{number(by_cell)}**. With each "
        f"{best['safe_name'].item()} kept whole it scores **{number(safe)}**, {verdict} the {number(constant)} of "
        "calling every "
        "cell sensitive."
    )
    if base.height and base["title"].item() != title:
        text += f" The best baseline, {base['title'].item()}, reaches {number(base['safe'].item())}."
    return text


def installed(summary: Mapping[str, Any], device: str) -> str:
    """Say what is on this machine."""
    ready, missing, remote = summary["ready"], summary["missing"], summary["remote"]
    rest = f" {len(missing)} need weights." if missing else ""
    rest += f" Asked elsewhere, with a key and at a price: {', '.join(remote)}." if remote else ""
    lines = [
        f"**Computes on** {device}.",
        f"**Ready models:** {', '.join(ready) or 'none'}.{rest}",
        f"**Data sets built:** {summary['built']}.",
        f"**Measured runs:** {summary['runs']}"
        + (f", the last on {summary['measured']}." if summary["measured"] else "."),
    ]
    return "  \n".join(lines)
