"""The report of a prediction as Markdown: what a person pastes into a lab book."""

from __future__ import annotations

from typing import Any

from scdrugmap.app import sentences, words
from scdrugmap.app.jobs_store import JobStatus


def markdown(status: JobStatus, summary: dict[str, Any]) -> str:
    """Return the report of a finished job."""
    provenance = summary["provenance"]
    simulated = " (simulated cells)" if status.simulated else ""
    lines = [
        f"# scDrugMap: {status.file}{simulated}",
        "",
        f"Model {provenance['model']}, reference {provenance['reference']}, {provenance['date']}, scdrugmap "
        f"{provenance['version']}.",
        "",
        f"* Cells: {words.count(summary['n_cells'])}",
        f"* Predicted resistant: {sentences.share(summary['resistant'])} "
        f"({sentences.share_unit(summary['resistant'])})",
        f"* Without novel cells: {sentences.share(summary['resistant_known'])}",
        f"* Novel to the reference: {sentences.share(summary['novel'])}",
        "",
        *_groups("sample", summary["by_sample"]),
        *_groups("cluster", summary["by_cluster"]),
        "## Checks of the file",
        "",
        *(f"* {check['level']}: {check['message']}" for check in status.checks),
        "",
        "## What the score is",
        "",
        sentences.what_it_is(provenance),
        "",
        f"Weights {provenance['weights_hash']}; reference fitted {provenance['reference_date']}.",
    ]
    return "\n".join(lines) + "\n"


def _groups(name: str, rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    table = [
        f"| {row['group']} | {words.count(row['n_cells'])} | {sentences.share(row)} | "
        f"{words.percent(row['share_novel'])} |"
        for row in rows
    ]
    return [f"## By {name}", "", f"| {name} | cells | predicted resistant | novel |", "|---|---|---|---|", *table, ""]
