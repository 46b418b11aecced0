"""One train and test pair as pictures: who was called what, the scores by sample, ROC and precision-recall."""

from __future__ import annotations

import altair as alt
import polars as pl

from scdrugmap.plots.base import stack
from scdrugmap.plots.palette import RESPONSE, Ink
from scdrugmap.plots.scores import LABEL_PX

CALLS = ["sensitive", "resistant"]


def confusion(frame: pl.DataFrame, ink: Ink) -> alt.LayerChart:
    """Draw the four counts; colour is the share of the row, so that a rare class is not washed out.

    Columns: `label`, `called`, `cells`, `share` (of the cells with that label).
    """
    base = alt.Chart(frame).encode(
        x=alt.X("called:N", sort=CALLS, title="called", scale=alt.Scale(domain=CALLS),
                axis=alt.Axis(orient="top", labelAngle=0, grid=False, domain=False, ticks=False, labelFontSize=13)),
        y=alt.Y("label:N", sort=CALLS, title="label", scale=alt.Scale(domain=CALLS),
                axis=alt.Axis(grid=False, domain=False, ticks=False, labelFontSize=13, labelLimit=90,
                              labelFlush=False)),
        tooltip=["label:N", "called:N", alt.Tooltip("cells:Q", format=","),
                 alt.Tooltip("share:Q", title="of that label", format=".0%")],
    )  # fmt: skip
    fill = alt.Color("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[ink.faint, ink.accent]))
    strong = alt.condition("datum.share > 0.6", alt.value(ink.paper), alt.value(ink.text))
    return stack(
        ink,
        210,
        base.mark_rect(stroke=ink.paper, strokeWidth=3, cornerRadius=4).encode(color=fill),
        base.mark_text(fontSize=17, fontWeight=600, dy=-7).encode(text=alt.Text("cells:Q", format=","), color=strong),
        base.mark_text(fontSize=12, dy=13).encode(text=alt.Text("share:Q", format=".0%"), color=strong),
    )


def by_sample(frame: pl.DataFrame, threshold: float, ink: Ink) -> alt.LayerChart:
    """Draw the spread of P(resistant) in each sample: median, middle half, and 5 to 95 %; colour is the label.

    Columns: `sample`, `label`, `n`, `p5`, `p25`, `p50`, `p75`, `p95`; a sample with both labels has a row for each.
    """
    frame = frame.with_columns(row=pl.format("{} · {}", "sample", pl.col("label").str.head(1).str.to_uppercase()))
    order = frame.sort("label", "p50", descending=[True, False])["row"].to_list()
    y = alt.Y("row:N", sort=order, title=None, axis=alt.Axis(
        labelLimit=LABEL_PX, grid=False, labelFlush=False, labelOverlap=False, labelColor=ink.text,
        ticks=False))  # fmt: skip
    scale, axis = alt.Scale(domain=[0, 1], nice=False), alt.Axis(format="~g", tickCount=5)
    legend = alt.Legend(title=None, orient="top", symbolType="square", symbolOpacity=1, offset=2)
    colour = alt.Color("label:N", legend=legend, scale=alt.Scale(domain=CALLS, range=[RESPONSE[c] for c in CALLS]))
    tips = [alt.Tooltip("sample:N"), alt.Tooltip("label:N"), alt.Tooltip("n:Q", title="cells", format=",")]
    tips += [alt.Tooltip(f"p{q}:Q", title=f"{q} % lie below", format=".2f") for q in (5, 25, 50, 75, 95)]
    base = alt.Chart(frame).encode(y=y, color=colour, tooltip=tips)
    at = alt.Chart(pl.DataFrame({"threshold": [threshold]}))
    return stack(
        ink,
        24 * max(frame.height, 1) + 88,
        at.mark_rule(strokeDash=[5, 3], strokeWidth=1.6, color=ink.text).encode(x=alt.X("threshold:Q", scale=scale)),
        base.mark_rule(strokeWidth=1.6, opacity=0.6).encode(
            x=alt.X("p5:Q", scale=scale, axis=axis, title="P(resistant)"), x2="p95:Q"
        ),
        base.mark_bar(height=9, opacity=0.55).encode(x=alt.X("p25:Q", scale=scale), x2="p75:Q"),
        base.mark_point(size=70, filled=True, opacity=1, stroke=ink.paper, strokeWidth=1).encode(
            x=alt.X("p50:Q", scale=scale)
        ),
    )


def curve(frame: pl.DataFrame, titles: tuple[str, str], level: str, ink: Ink) -> alt.LayerChart:
    """Draw an ROC or precision-recall curve and what looking at nothing gets.

    Columns: `step` (their order), `x`, `y`, `level` (the height of the dashed line, which the argument names).
    """
    unit, axis = alt.Scale(domain=[0, 1], nice=False), alt.Axis(format="~g", tickCount=5)
    x = alt.X("x:Q", scale=unit, axis=axis, title=titles[0])
    y = alt.Y("y:Q", scale=unit, axis=axis, title=titles[1])
    base = alt.Chart(frame)
    tips = [alt.Tooltip("x:Q", title=titles[0], format=".2f"), alt.Tooltip("y:Q", title=titles[1], format=".2f")]
    dashed = base.mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=ink.soft).encode(
        x=x, y=alt.Y("level:Q", scale=unit, title=titles[1])
    )
    line = base.mark_line(strokeWidth=2.4, color=ink.accent, interpolate="linear").encode(
        x=x, y=y, order="step:Q", tooltip=tips
    )
    note = pl.DataFrame({"x": [1.0], "y": [0.0], "said": [f"dashed: {level}"]})
    text = (
        alt.Chart(note)
        .mark_text(align="right", dx=-6, dy=-9, fontSize=12, color=ink.soft)
        .encode(x=x, y=y, text="said:N")
    )
    return stack(ink, 300, dashed, line, text)
