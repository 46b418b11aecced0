"""Views beside the ranking as pictures: curves over shots, calibration, significance, cost. No streamlit here."""

from __future__ import annotations

import altair as alt
import polars as pl

from scdrugmap.plots.base import in_two_lines, stack
from scdrugmap.plots.palette import CATEGORIES, Ink
from scdrugmap.plots.scores import DASHES, LABEL_PX, SCORE_SOURCES

_SHOTS = ("0", "1", "5", "10", "50", "all")
SMALL = 24  # px a row where many rows stand below each other
_ENTRY = 20  # px a row of a legend, of which a phone has one an entry
PHONE = "width < 400"  # of the plot, in px


def few_shot(frame: pl.DataFrame, metric: str, ink: Ink) -> alt.LayerChart:
    """Draw one curve an entry over the labelled target cells a class; the constant classifier is the dashed line.

    The line stands at the constant of the cells that the points share; those of "all" may be others.

    Columns: `title`, `shots` (words of `_SHOTS`, in their order), `value`, `low`, `high`, `constant`, `n`, `seeds`.
    """
    present = frame["shots"].unique().to_list()
    order = [*(name for name in _SHOTS if name in present), *sorted(set(present) - set(_SHOTS), key=int)]
    names = frame["title"].unique(maintain_order=True).to_list()
    x = alt.X("shots:O", sort=order, title="labelled target cells a class",
              axis=alt.Axis(labelAngle=0, grid=False, labelFontSize=13),
              scale=alt.Scale(paddingInner=0.4, paddingOuter=0.25))  # fmt: skip
    bounds = [v for c in ("value", "low", "high", "constant") for v in frame[c].drop_nulls().to_list()]
    # the t interval of two seeds may leave the range of the metric: it is cut there, the scores are not
    least, most = min(0.0, frame["value"].min() or 0), max(1.0, frame["value"].max() or 1)
    scale = alt.Scale(domain=[max(min(bounds), least) - 0.03, min(max(bounds), most) + 0.03], nice=False)
    base = alt.Chart(frame).encode(
        x=x, color=_entry(names), xOffset=alt.XOffset("title:N", sort=names),
        tooltip=[alt.Tooltip("title:N", title="model"), alt.Tooltip("shots:O", title="shots a class"),
                 alt.Tooltip("value:Q", title=metric, format=".2f"), alt.Tooltip("low:Q", title="from", format=".2f"),
                 alt.Tooltip("high:Q", title="to", format=".2f"),
                 alt.Tooltip("constant:Q", format=".2f"), alt.Tooltip("n:Q", title="cells", format=","),
                 alt.Tooltip("seeds:Q")],
    )  # fmt: skip
    y = alt.Y("value:Q", title=metric, scale=scale, axis=alt.Axis(format="~g", tickCount=6))
    whiskers = base.mark_rule(strokeWidth=2, opacity=0.45, clip=True).encode(
        y=alt.Y("low:Q", scale=scale, title=metric), y2="high:Q"
    )
    lines = base.mark_line(strokeWidth=2.2).encode(y=y)
    dots = base.mark_point(size=70, filled=True, opacity=1, stroke=ink.paper, strokeWidth=1).encode(y=y)
    few = frame.filter(pl.col("shots") != "all")
    level = (few if few.height else frame).select(pl.col("constant").mean())
    rule = alt.Chart(level).mark_rule(strokeDash=[5, 4], strokeWidth=1.6, color=ink.text).encode(
        y=alt.Y("constant:Q", scale=scale, title=metric))  # fmt: skip
    marks = [whiskers, lines, dots]
    constant = level["constant"][0]
    if constant is None:
        return stack(ink, 340 + _ENTRY * len(names), *marks)
    title = alt.Title(f"dashed: the constant classifier, {constant:.2f}", anchor="start", fontSize=12, color=ink.soft,
                      fontWeight="normal", offset=8)  # fmt: skip
    return stack(ink, 360 + _ENTRY * len(names), rule, *marks).properties(title=title)


def reliability(frame: pl.DataFrame, ink: Ink) -> alt.LayerChart:
    """Draw what share of the cells of each bin is resistant against what was predicted; on the diagonal it is honest.

    Columns: `title`, `predicted` (mean P(resistant) of the bin), `observed`, `low`, `high`, `n`.
    """
    names = frame["title"].unique(maintain_order=True).to_list()
    unit = alt.Scale(domain=[0, 1], nice=False)
    axis = alt.Axis(format="~g", tickCount=5)
    ends = pl.DataFrame({"predicted": [0.0, 1.0], "observed": [0.0, 1.0]})
    x = alt.X("predicted:Q", scale=unit, axis=axis, title="P(resistant), mean of the bin")
    y = alt.Y("observed:Q", scale=unit, axis=axis, title="share resistant")
    diagonal = alt.Chart(ends).mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=ink.soft).encode(x=x, y=y)
    base = alt.Chart(frame).encode(x=x, color=_entry(names), tooltip=[
        alt.Tooltip("title:N", title="model"), alt.Tooltip("predicted:Q", title="P(resistant)", format=".2f"),
        alt.Tooltip("observed:Q", title="share resistant", format=".2f"),
        alt.Tooltip("low:Q", title="from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"), alt.Tooltip("n:Q", title="cells in the bin", format=","),
    ])  # fmt: skip
    whiskers = base.mark_rule(strokeWidth=2, opacity=0.45).encode(y=alt.Y("low:Q", scale=unit), y2="high:Q")
    lines = base.mark_line(strokeWidth=1.6, opacity=0.7).encode(y=y)
    size = alt.Size("n:Q", scale=alt.Scale(range=[25, 300], domainMin=0), legend=None)
    dots = base.mark_point(filled=True, opacity=1, stroke=ink.paper, strokeWidth=1).encode(y=y, size=size)
    return stack(ink, 380 + _ENTRY * len(names), diagonal, whiskers, lines, dots)


def bins(frame: pl.DataFrame, ink: Ink) -> alt.LayerChart:
    """Draw how many cells each bin of the reliability diagram holds, in the same columns, all entries together."""
    cells = frame.group_by("left", "right").agg(pl.col("n").mean())
    bars = alt.Chart(cells).mark_bar(color=ink.soft, opacity=0.75, stroke=ink.paper, strokeWidth=1).encode(
        x=alt.X("left:Q", scale=alt.Scale(domain=[0, 1], nice=False, padding=0), title="P(resistant)",
                axis=alt.Axis(format="~g", tickCount=5)),
        x2="right:Q", y=alt.Y("n:Q", title="cells a bin", axis=alt.Axis(tickCount=3, format="~s")),
        y2=alt.datum(0),
        tooltip=[alt.Tooltip("left:Q", title="from", format=".1f"), alt.Tooltip("right:Q", title="to", format=".1f"),
                 alt.Tooltip("n:Q", title="cells, mean of the entries", format=",.0f")],
    )  # fmt: skip
    return stack(ink, 130, bars)


def _entry(names: list[str]) -> alt.Color:
    colours = alt.Scale(domain=names, range=[CATEGORIES[i % len(CATEGORIES)] for i in range(len(names))])
    legend = alt.Legend(title=None, orient="bottom", columns=alt.expr(f"{PHONE} ? 1 : 2"), labelLimit=260,
                        symbolType="stroke", symbolOpacity=1, rowPadding=4)  # fmt: skip
    return alt.Color("title:N", scale=colours, legend=legend)


def critical_difference(ranks: pl.DataFrame, groups: list[list[str]], width: float, ink: Ink) -> alt.LayerChart:
    """Draw mean ranks after Demsar (2006): entries joined by a bar are not told apart by Nemenyi's test.

    `ranks`: `title`, `mean_rank`, `rank_low`, `rank_high`, `first`, `won`; `groups`: titles; `width`: the critical
    difference. Rank 1, the best, is left. Names stand in rows rather than at the ends of stems, so that a phone shows
    them.
    """
    ranks = ranks.sort("mean_rank")
    place = dict(ranks.select("title", "mean_rank").iter_rows())
    ruler = f"critical difference {width:.2f}"
    bars = [
        (f"not told apart {i + 1}", min(place[n] for n in g), max(place[n] for n in g)) for i, g in enumerate(groups)
    ]
    first = float(ranks["mean_rank"].min() or 1)  # type: ignore[arg-type]
    rows = [ruler, *(name for name, _, _ in bars), *ranks["title"].to_list()]
    last = max(ranks.height, first + width, *ranks["rank_high"].drop_nulls().to_list())
    scale = alt.Scale(domain=[0.7, last + 0.3], nice=False)
    x = alt.X("mean_rank:Q", scale=scale, title="mean rank (1 is the best)",
              axis=alt.Axis(orient="top", values=list(range(1, int(last) + 1)), format="d", grid=True))  # fmt: skip
    expression = (
        "datum.label == 'not told apart 1' ? 'not told apart' : indexof(datum.label, 'not told apart') == 0 ? '' : "
    )
    named = in_two_lines(rows, 30, before=expression)  # the bars share one name, which stands at the first
    y = alt.Y("title:N", sort=rows, scale=alt.Scale(domain=rows), title=None, axis=alt.Axis(
        labelLimit=LABEL_PX, labelFontSize=13, labelColor=ink.text, **named, grid=False, ticks=False,
        labelFlush=False, labelOverlap=False, domain=False))  # fmt: skip
    spans = pl.DataFrame([*bars, (ruler, first, first + width)], schema=["title", "from", "to"], orient="row")
    thick = alt.Chart(spans).mark_rule(strokeWidth=5, strokeCap="round").encode(
        x=alt.X("from:Q", scale=scale), x2="to:Q", y=y,
        color=alt.condition(f"datum.title == '{ruler}'", alt.value(ink.soft), alt.value(ink.text)))  # fmt: skip
    tips = [alt.Tooltip("title:N", title="model"), alt.Tooltip("mean_rank:Q", title="mean rank", format=".2f"),
            alt.Tooltip("rank_low:Q", title="rank from", format=".0f"),
            alt.Tooltip("rank_high:Q", title="rank to", format=".0f"),
            alt.Tooltip("won:Q", title="data sets won", format=".1f"),
            alt.Tooltip("first:Q", title="first when sets are drawn anew", format=".0%")]  # fmt: skip
    base = alt.Chart(ranks).encode(y=y, tooltip=tips)
    stems = base.mark_rule(strokeWidth=1, color=ink.soft, strokeDash=[2, 3], opacity=0.7).encode(x=x)
    whiskers = base.mark_rule(strokeWidth=2.5, opacity=0.5, color=ink.accent).encode(
        x=alt.X("rank_low:Q", scale=scale), x2="rank_high:Q")  # fmt: skip
    dots = base.mark_point(size=120, filled=True, opacity=1, color=ink.accent).encode(x=x)
    return stack(ink, SMALL * len(rows) + 64, stems, thick, whiskers, dots)


def cost(frame: pl.DataFrame, metric: str, ink: Ink) -> alt.LayerChart:
    """Draw the score against cells a second; the dashed line joins what nothing beats in both.

    Columns: `title`, `value`, `ci_low`, `ci_high`, `source`, `cells_per_s`, `machine`, `pareto` (bool), `left` (the
    name stands left of the mark), `wide` and `narrow` (the name has room on a wide plot, on a phone's).
    """
    slowest, fastest = frame["cells_per_s"].min(), frame["cells_per_s"].max()  # the ends, as room for names is counted
    ends = {"domain": [slowest, fastest], "padding": 24} if slowest != fastest else {"nice": True}
    x = alt.X("cells_per_s:Q", title="cells a second (log scale)", scale=alt.Scale(type="log", **ends),
              axis=alt.Axis(format="~g", tickCount=4))  # fmt: skip
    scale = alt.Scale(zero=False, padding=18)
    y = alt.Y("value:Q", title=metric, scale=scale, axis=alt.Axis(format="~g", tickCount=5))
    tips = [alt.Tooltip("title:N", title="model"), alt.Tooltip("value:Q", title=metric, format=".2f"),
            alt.Tooltip("source:N"), alt.Tooltip("cells_per_s:Q", title="cells a second", format=",.1f"),
            alt.Tooltip("machine:N")]  # fmt: skip
    base = alt.Chart(frame).encode(x=x, tooltip=tips)
    best = alt.Chart(frame.filter("pareto").sort("cells_per_s"))
    fill = alt.Fill(
        "source:N", scale=alt.Scale(domain=SCORE_SOURCES, range=[ink.accent, ink.paper, ink.paper]), legend=None
    )
    dash = alt.StrokeDash("source:N", scale=alt.Scale(domain=SCORE_SOURCES, range=DASHES), legend=None)
    names = [
        alt.Chart(frame.filter(pl.col(room), left=left))
        .mark_text(align="right" if left else "left", dx=-11 if left else 11, dy=-9, fontSize=size, color=ink.text)
        .encode(x=x, y=y, text="title:N")
        for left in (False, True)
        for room, size in (("narrow", alt.expr(f"{PHONE} ? 11 : 0")), ("wide", alt.expr(f"{PHONE} ? 0 : 12")))
    ]
    return stack(
        ink,
        360,
        best.mark_line(strokeWidth=1.6, strokeDash=[4, 3], color=ink.soft).encode(x=x, y=y, order="cells_per_s:Q"),
        base.mark_rule(strokeWidth=2, opacity=0.5, color=ink.accent).encode(
            y=alt.Y("ci_low:Q", title=metric, scale=scale), y2="ci_high:Q"
        ),
        base.mark_point(size=120, strokeWidth=2.2, opacity=1).encode(
            y=y, fill=fill, stroke=alt.value(ink.accent), strokeDash=dash
        ),
        *names,
    )
