"""The result of a prediction: headline, map, groups, comparison with labels, provenance, files."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.jobs import endpoints, service
from scdrugmap.app.jobs.store import JobStatus
from scdrugmap.app.predict import queries as predict_queries
from scdrugmap.app.predict import report, steps, tables, text
from scdrugmap.app.ui import format, glossary, layout, score_table, sentence, widgets
from scdrugmap.plots import cells as cell_plots


def draw(status: JobStatus) -> None:
    """Draw the whole result of a finished job."""
    summary = predict_queries.summary(status.job_id)
    provenance = summary["provenance"]
    is_asked = "asked" in provenance
    if warning := endpoints.warning(provenance) if is_asked else text.no_evidence(provenance):
        st.warning(format.plain(warning) if is_asked else warning, icon=":material/warning:")
    if caveat := summary["metrics"].get("caveat"):
        st.warning(caveat, icon=":material/warning:")
    cells = endpoints.drawable(predict_queries.cells(status.job_id))
    if is_asked:
        headline_asked(summary)
    else:
        headline(summary)
    downloads(status, summary)
    names = [
        "Map",
        "Samples and clusters",
        *(["Against your labels"] if summary["metrics"] else []),
        "Checks",
        "Provenance",
    ]
    places = dict(zip(names, st.tabs(names, key="view", bind="query-params"), strict=True))
    with places["Map"]:
        cell_map(status, cells, summary)
    with places["Samples and clusters"]:
        groups(summary)
    if summary["metrics"]:
        with places["Against your labels"]:
            against_labels(summary["metrics"])
    with places["Checks"]:
        steps.checks(status)
    with places["Provenance"]:
        st.json(provenance)
    meaning(summary)


def headline(summary: dict[str, Any]) -> None:
    """Draw the share resistant with its interval, the share novel, and the switch that leaves novel cells out."""
    known_only = widgets.toggle("Leave novel cells out of the headline", "known", default=False, word="novelty")
    part = summary["resistant_known" if known_only else "resistant"]
    quiet: dict[str, Any] = {"border": True, "delta_color": "off", "delta_arrow": "off"}
    first, second, third = st.columns([3, 2, 2])
    among = " among cells the reference knows" if known_only else ""
    first.metric(
        f"Predicted resistant{among}", text.share(part), help=glossary.tip("P(resistant)"),
        delta=f"{format.count(part['n_cells'])} cells, {text.share_unit(part)}", **quiet,
    )  # fmt: skip
    second.metric(
        "Novel to the reference", text.share(summary["novel"]), help=glossary.tip("novelty"),
        delta=f"{format.count(summary['novel']['n'])} cells, drawn hollow", **quiet,
    )  # fmt: skip
    score, constant = text.held_out(summary["provenance"])
    third.metric("This reference on unseen studies", score, delta=constant, help=glossary.tip("reference"), **quiet)


def headline_asked(summary: dict[str, Any]) -> None:
    """Draw the share resistant with its interval, the cells without an answer, and what asking cost."""
    quiet: dict[str, Any] = {"border": True, "delta_color": "off", "delta_arrow": "off"}
    first, second, third = st.columns([3, 2, 2])
    part = summary["resistant"]
    first.metric(
        "Predicted resistant", text.share(part), help=endpoints.P_ASKED, **quiet,
        delta=f"{format.count(part['n_cells'])} cells, {text.share_unit(part)}" if part["n_cells"] else "no cell",
    )  # fmt: skip
    second.metric(
        "Cells without an answer", format.count(summary["n_failed"]), delta=f"of {format.count(summary['n_cells'])}",
        help="The model gave no readable answer about them, also when it was asked again.", **quiet,
    )  # fmt: skip
    usd, tokens = endpoints.cost(summary["provenance"])
    third.metric("Asking cost", usd, delta=tokens, **quiet)


def downloads(status: JobStatus, summary: dict[str, Any]) -> None:
    """Offer the table, the AnnData and the report."""
    files = service.service().results(status.job_id)
    stem = status.file.split(".")[0] or "prediction"
    with st.container(horizontal=True):
        for kind, label, mime in (
            ("csv", "Table (.csv)", "text/csv"),
            ("h5ad", "For scanpy (.h5ad)", "application/x-hdf5"),
        ):
            st.download_button(
                label, files[kind].read_bytes, file_name=f"{stem}_scdrugmap.{kind}", mime=mime, on_click="ignore",
                icon=":material/download:", key=f"download_{kind}",
            )  # fmt: skip
        st.download_button(
            "Report (.md)", report.markdown(status, summary), file_name=f"{stem}_scdrugmap.md", mime="text/markdown",
            on_click="ignore", icon=":material/description:", key="download_report",
        )  # fmt: skip


def cell_map(status: JobStatus, cells: pl.DataFrame, summary: dict[str, Any]) -> None:
    """Draw the UMAP beside the histogram with its threshold."""
    ink = layout.ink()
    names = {
        title: name for title, name in predict_queries.colours(cells).items() if cells[name].null_count() < cells.height
    }
    shown = cell_plots.sample_cells(cells)
    left, right = st.columns([3, 2], gap="large")
    with left:
        if shown.is_empty():
            st.markdown("No cell got an answer, so there is nothing to draw.")
            return
        title = widgets.choose("Colour by", list(names), "colour")
        st.altair_chart(
            cell_plots.cell_map(shown, names[title], title, ink), alt=f"UMAP of the cells, coloured by {title}"
        )
    with right:
        cut = widgets.threshold()
        st.altair_chart(cell_plots.histogram(cells, cut, ink), alt="distribution of P(resistant)")
        st.markdown(text.spread(cells["p_resistant"], cut))
    is_asked = "asked" in summary["provenance"]
    layout.caption(
        "UMAP of the cells' expression (HVG-PCA), as the model has no embedding"
        if is_asked
        else "UMAP of the model's embedding",
        text.drawn(shown.height, cells.height),
        "cells without an answer are not drawn" if is_asked else "novel cells are hollow",
        "simulated cells" if status.simulated else "",
        summary["provenance"]["date"][:10],
    )


def groups(summary: dict[str, Any]) -> None:
    """Draw the share predicted resistant per sample and per cluster, with intervals."""
    ink = layout.ink()
    for name, rows in (("sample", summary["by_sample"]), ("cluster", summary["by_cluster"])):
        if not rows:
            st.markdown("There is no column that tells samples apart, so intervals are drawn over cells.")
            continue
        frame = pl.DataFrame(rows, infer_schema_length=None).rename({"share": "share_resistant"})
        frame = frame.filter(pl.col("share_resistant").is_not_null())
        if frame.is_empty():
            st.markdown(f"No {name} has a cell with an answer.")
            continue
        st.markdown(f"**By {name}**")
        st.altair_chart(cell_plots.shares(frame.head(text.GROUPS), ink), alt=f"share predicted resistant by {name}")
        units = sentence.listed(sorted(frame["unit"].unique().to_list()))
        layout.caption(
            f"share of cells with P(resistant) ≥ {format.number(summary['threshold'])}, {frame.height} {name}s",
            f"95 % interval over {units}s",
            text.only_the_largest(frame.height),
        )
        widgets.table(tables.groups(frame), tables.group_columns(name), f"by_{name}")


def against_labels(metrics: dict[str, Any]) -> None:
    """Show the scores against the labels that came with the file, each beside the constant classifier's."""
    if "not_scored" in metrics:
        st.warning(format.plain(metrics["not_scored"]), icon=":material/warning:")
        return
    widgets.table(score_table.scores(metrics["scores"]), score_table.score_columns(), "labels")
    layout.caption(
        f"{format.count(metrics['n'])} labelled cells, {format.percent(metrics['prevalence'])} of them sensitive",
        f"95 % bootstrap interval over {format.count(metrics['n_units'])} {metrics['unit']}s",
        text.untaught(metrics),
    )


def meaning(summary: dict[str, Any]) -> None:
    """Say what the score is and what it is not, always."""
    with st.container(border=True):
        provenance = summary["provenance"]
        st.markdown(endpoints.what_it_is(provenance) if "asked" in provenance else text.what_it_is(provenance))
