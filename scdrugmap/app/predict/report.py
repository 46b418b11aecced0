"""The report of a prediction as Markdown: what a person pastes into a lab book."""

from __future__ import annotations

from typing import Any

from scdrugmap.app.jobs import endpoints
from scdrugmap.app.jobs.store import JobStatus
from scdrugmap.app.predict import text
from scdrugmap.app.ui import format


def markdown(status: JobStatus, summary: dict[str, Any]) -> str:
    """Return the report of a finished job."""
    provenance = summary["provenance"]
    is_asked = "asked" in provenance
    simulated = " (simulated cells)" if status.simulated else ""
    lines = [
        f"# scDrugMap: {status.file}{simulated}",
        "",
        f"Model {provenance['model']}, {_by(provenance)}, {provenance['date']}, scdrugmap {provenance['version']}.",
        "",
        f"* Cells: {format.count(summary['n_cells'])}",
        f"* Predicted resistant: {text.share(summary['resistant'])} ({text.share_unit(summary['resistant'])})",
        *_beside(summary),
        "",
        *_groups("sample", summary["by_sample"]),
        *_groups("cluster", summary["by_cluster"]),
        "## Checks of the file",
        "",
        *(f"* {check['level']}: {check['message']}" for check in status.checks),
        "",
        "## What the score is",
        "",
        endpoints.what_it_is(provenance).replace("\\:", ":") if is_asked else text.what_it_is(provenance),
        *(
            []
            if is_asked
            else ["", f"Weights {provenance['weights_hash']}; reference fitted {provenance['reference_date']}."]
        ),
    ]
    return "\n".join(lines) + "\n"


def _by(provenance: dict[str, Any]) -> str:
    """Say what turned cells into P(resistant)."""
    if "asked" in provenance:
        return f"asked at {provenance['asked']['host']}"
    return f"reference {provenance['reference']}"


def _beside(summary: dict[str, Any]) -> list[str]:
    """Return what stands beside the share of resistant cells."""
    if "asked" in summary["provenance"]:
        usd, tokens = endpoints.cost(summary["provenance"])
        return [
            f"* Cells without an answer: {format.count(summary['n_failed'])} (no share counts them)",
            f"* Asking cost: {usd} ({tokens})",
            f"* Told about the cells: {endpoints.was_told(summary['provenance'])}",
        ]
    return [
        f"* Without novel cells: {text.share(summary['resistant_known'])}",
        f"* Novel to the reference: {text.share(summary['novel'])}",
    ]


def _groups(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return the table per sample or cluster; where novelty is not told, it has no column."""
    if not rows:
        return []
    with_novel = any(row["share_novel"] is not None for row in rows)
    heads = [name, "cells", "predicted resistant", *(["novel"] if with_novel else [])]
    lines = [
        [str(row["group"]), format.count(row["n_cells"]), text.share(row)]
        + ([format.percent(row["share_novel"])] if with_novel else [])
        for row in rows
    ]
    table = [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines)]
    return [f"## By {name}", "", *table, ""]
