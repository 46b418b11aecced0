"""The tabs of the models page beside the ranking: facets, few shots, calibration, significance."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import streamlit as st

from scdrugmap.app.models import filters, frames, text
from scdrugmap.app.models import queries as models_queries
from scdrugmap.app.models import tables as models_tables
from scdrugmap.app.ui import board, format, glossary, layout, queries, score_table, widgets
from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.plots import base, benchmark, scores

Picks = Mapping[str, str]
PANELS = 12  # small multiples that are drawn at first
CALIBRATED = 3  # entries whose reliability is drawn at first
_CURVES, COLOURS = 5, 10  # curves that are drawn at first, and at most: colours beyond that repeat


def by_facet(picks: Picks, kinds: list[str]) -> None:
    """Draw the ranking under each value of the facet, all on one scale."""
    view = {"protocol": picks["protocol"], "shots": frames.words_of(picks["shots"])}
    if picks["strategy"] != board.ANY_VALUE:
        view["strategy"] = picks["strategy"]
    rows = models_queries.by_facet(queries.SHOWN[picks["metric"]], picks["facet"], split_by=picks["split_by"], **view)
    rows = rows.filter(pl.col("source").is_in(kinds))
    if rows.is_empty():
        layout.nothing_yet(
            "Nothing was measured or reported under these choices.",
            "Choose another facet or split, or run several data sets under a facet:",
            f"scdrugmap benchmark run --data one.h5ad --data two.h5ad --model scgpt-mini --facet {picks['facet']}",
        )
        return
    st.caption(text.follows("all but the set of cells", "every set of cells under the facet"))
    span = base.domain(rows, ("value", "ci_low", "ci_high", "constant"))
    panels = widgets.first(frames.panels(rows), "panels", PANELS)
    for at in range(0, len(panels), 2):
        for place, (name, part) in zip(st.columns(2, gap="large"), panels[at : at + 2], strict=False):
            cells = max(part["n"].drop_nulls(), default=0)
            place.markdown(f"**{format.plain(name)}** · {format.count(cells)} cells")
            drawn = scores.ranking(filters.named(part), picks["metric"], layout.ink(), span)
            place.altair_chart(drawn, alt=f"{picks['metric']} of the entries on {name}")
    date = queries.date_of(rows["run_id"])
    layout.caption(*text.facet_caption(rows, picks, date, frames.PANEL))
    shown = pl.concat([part for _, part in frames.panels(rows)]).drop("rank")
    with st.expander(f"All {len(shown)} entries as a table", icon=":material/table_rows:"):
        columns = score_table.scores_of_columns(picks["metric"])
        widgets.table(score_table.scores_of(shown), columns, "facets", opens="run",
                      keys=score_table.scores_of(shown)["run_id"].to_list())  # fmt: skip


def few_shot(picks: Picks, *, simulated: bool) -> None:
    """Draw what labelled cells of the target add, one target at a time."""
    view = {} if picks["strategy"] == board.ANY_VALUE else {"strategy": picks["strategy"]}
    rows = models_queries.few_shot(queries.SHOWN[picks["metric"]], simulated=simulated, **view)
    if rows.is_empty():
        layout.nothing_yet(
            "No model was given labelled cells of a target here.",
            "Train on other data sets and on 0, 1, 5, 10 and 50 labelled cells a class of the one that is tested.",
            "scdrugmap benchmark run --data one.h5ad --data two.h5ad --model scgpt-mini --protocol cross-data "
            "--split-by dataset --shots 0 --shots 5 --shots 50",
        )
        return
    st.caption(text.follows("the metric and the strategy", "training on other data sets (cross-data)"))
    left, right = st.columns([2, 3])
    targets = frames.targets(rows)
    target = widgets.choose("Target", targets, "target", word="shots", default=picks["on"], place=left)
    curves = frames.one_target(rows, target)
    names = frames.best_curves(curves, higher=queries.metric(picks["metric"]).higher_is_better)
    chosen = widgets.several("Models", names, "curves", word="model", place=right, shown=f"the best {_CURVES}")
    curves = curves.filter(pl.col("title").is_in((chosen or names[:_CURVES])[:COLOURS]))
    chart = benchmark.few_shot(curves, picks["metric"], layout.ink())
    st.altair_chart(chart, alt=f"{picks['metric']} on {target} over labelled target cells")
    ids = curves["run_ids"].explode().drop_nulls()
    layout.caption(*text.few_shot_caption(curves, target, picks, queries.date_of(ids), simulated=simulated))
    with st.expander(f"All {curves.height} points as a table", icon=":material/table_rows:"):
        shown = models_tables.points(curves)
        widgets.table(shown, models_tables.points_columns(picks["metric"]), "points", opens="run",
                      keys=shown["run_id"].to_list())  # fmt: skip


def calibration(rows: pl.DataFrame) -> None:
    """Draw whether P(resistant) of the measured entries in view means what it says."""
    rows = filters.named(rows.filter(pl.col("source") != "reported")).unique("title", keep="first", maintain_order=True)
    reliabilities, ids, missing = [], [], []
    if rows.height:
        names = rows["title"].to_list()
        chosen = widgets.several("Models", names, "entries", word="reliability", shown=f"the first {CALIBRATED}")
        chosen = (chosen or names[:CALIBRATED])[:COLOURS]
        for title, run_id in rows.filter(pl.col("title").is_in(chosen)).select("title", "run_id").iter_rows():
            try:
                reliabilities.append((title, models_queries.calibration(run_id)))
                ids.append(run_id)
            except UnknownName:
                missing.append(title)
    if missing:
        st.info(f"The predictions of {', '.join(missing)} are not on this machine.", icon=":material/info:")
    if not reliabilities:
        layout.nothing_yet(
            "There are no predictions to look at under these choices.",
            "Choices with measured runs have them; reported numbers have none.",
            "scdrugmap benchmark run --data mine.h5ad --model scgpt-mini",
        )
        return
    frame, table = frames.calibrated(reliabilities), frames.calibration_table(reliabilities)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.altair_chart(benchmark.reliability(frame, layout.ink()), alt="share resistant against P(resistant)")
        st.altair_chart(benchmark.bins(frame, layout.ink()), alt="cells in each bin")
    with right:
        st.markdown(text.calibration(table))
    widgets.table(table, models_tables.calibration_columns(), "calibration", opens="run", keys=ids)
    layout.caption(*text.calibration_caption(table, rows, queries.date_of(rows["run_id"])))


def significance(picks: Picks, *, simulated: bool) -> None:
    """Draw which entries can be told apart over data sets, and the paired tests behind it."""
    view: dict[str, object] = {"protocol": picks["protocol"], "split_by": picks["split_by"]}
    view["shots"] = frames.words_of(picks["shots"])
    if picks["strategy"] != board.ANY_VALUE:
        view["strategy"] = picks["strategy"]
    try:
        comparison = models_queries.compare(queries.SHOWN[picks["metric"]], simulated=simulated, **view)
    except InvalidInput as error:
        layout.nothing_yet(str(error), error.remedy, "scdrugmap benchmark run --plan benchmarks/plans/smoke.toml")
        return
    ranks, names = frames.ranks(comparison, queries.models())
    st.caption(text.follows("all but the facet and the cells", "each data set by itself"))
    for sentence in comparison.remarks:
        st.markdown(sentence)
    groups = [[names[entry] for entry in group] for group in comparison.groups]
    chart = benchmark.critical_difference(ranks, groups, comparison.critical_difference, layout.ink())
    st.altair_chart(chart, alt="mean ranks and the critical difference")
    layout.caption(*text.significance_caption(comparison, picks))
    st.markdown("##### Paired tests", help=glossary.tip("critical difference"))
    tests = models_tables.tests(frames.compared(comparison, names))
    widgets.table(tests, models_tables.tests_columns(), "tests", height="content" if tests.height < 12 else 420)
    if comparison.dropped.height:
        with st.expander(f"Left out of the comparison: {comparison.dropped.height}"):
            widgets.table(comparison.dropped, models_tables.dropped_columns(), "dropped")


def priced(rows: pl.DataFrame, picks: Picks) -> pl.DataFrame:
    """Return the entries in view whose model's speed was measured; fewer than two are no comparison."""
    frame = frames.costed(
        filters.named(rows), models_queries.speeds(), higher_is_better=queries.metric(picks["metric"]).higher_is_better
    )
    return frame if frame["model"].n_unique() > 1 else frame.clear()


def cost(frame: pl.DataFrame, picks: Picks) -> None:
    """Draw what a score costs in time, where the speed of two models in view or more was measured."""
    if frame.is_empty():
        layout.nothing_yet(
            "No two models in view have a measured speed.",
            "Choose cells on which more models were scored, show reported numbers, or measure speeds on this machine:",
            "python benchmarks/embed.py",
        )
        return
    chart = benchmark.cost(frame, picks["metric"], layout.ink())
    st.altair_chart(chart, alt=f"{picks['metric']} against cells a second")
    layout.caption(*text.cost_caption(frame, picks))
    with st.expander(f"All {frame.height} entries as a table", icon=":material/table_rows:"):
        columns = models_tables.costs_columns(picks["metric"])
        widgets.table(models_tables.costs(frame), columns, "costs", opens="run", keys=frame["run_id"].to_list())
