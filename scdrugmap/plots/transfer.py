"""The transfer matrix as a picture: a data frame in, an Altair chart out. No streamlit here.

Rows are what a model was trained on, columns what it was tested on. Colour is the distance to the constant classifier
of the column, so that two columns with different shares of sensitive cells can be compared at all.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from scdrugmap.plots.base import in_two_lines, stack
from scdrugmap.plots.palette import Ink

MEAN = "mean"
GAP = " "  # an empty row and column that keep the means apart
PAIR = "pair"  # name of the selection that a click makes
STEP, _LEAST = 34, 15  # px a row, where there are few and where there are many
NAMES = 140  # px for the name of a data set beside its row, in two lines where there is room
_HEADS = 230  # px for one above its column
WHOLE = 16  # data sets up to which every cell can carry its number
HATCHED = {
    "confounded": "M-1,1L1,-1M-1,0L0,-1M0,1L1,0",
    "one class": "M-1,-1L1,1M-1,0L0,1M0,-1L1,0",
    "failed": "M-1,-1L1,1M-1,1L1,-1",
    "not run": "M-0.35,0L0.35,0",
}
DOT = "M0,-0.3A0.3,0.3,0,1,1,0,0.3A0.3,0.3,0,1,1,0,-0.3Z"  # its stroke fills it


def matrix(
    frame: pl.DataFrame,
    names: list[str],
    metric: str,
    ink: Ink,
    *,
    against: str,
    undecided: str,
    number: str = "value",
) -> alt.LayerChart:
    """Draw one cell a pair, in the order of `names`, with the means of rows and columns beside them.

    Columns: `train`, `test`, `state` ("measured", "mean", "itself" or a key of `HATCHED`), `value`, `shade` (the
    distance to what `against` names, positive is better), `crosses` (what the word `undecided` says of a cell), and for
    the tooltip those of `TIPS`. `number` is the column that stands in the cells. A click selects `PAIR`.
    """
    step = STEP if len(names) <= WHOLE else max(_LEAST, STEP - len(names) // 3)
    domain = [*names, GAP, MEAN] if frame.filter(state="mean").height else names
    base = _placed(frame, domain, step, ink)
    filled = "datum.state == 'measured' || datum.state == 'mean'"
    scored, rest = base.transform_filter(filled), base.transform_filter(f"!({filled})")
    edge: dict[str, Any] = {"stroke": ink.paper, "strokeWidth": 1.5}
    layers = [
        rest.mark_rect(fill=ink.faint, fillOpacity=0.45, **edge),
        scored.mark_rect(**edge).encode(color=_shade(frame, against, ink)),
        *_numbers(scored, frame, number, len(domain), len(names), ink),
        *_signs(frame, undecided, domain, step, ink),
    ]
    clicked = alt.selection_point(name=PAIR, fields=["train", "test"], on="click", empty=False, clear=False)
    over = base.mark_rect(opacity=0, cursor="pointer").encode(tooltip=tips(frame, metric)).add_params(clicked)
    heads = min(_HEADS, 7 * max((len(name) for name in names), default=0)) + 114
    legend = 21 * _signed(frame, undecided)["sign"].n_unique()
    return stack(ink, step * len(domain) + heads + legend, *layers, over)


def _placed(frame: pl.DataFrame, domain: list[str], step: int, ink: Ink) -> alt.Chart:
    size = 12 if step > 20 else 10
    shared: dict[str, Any] = {
        "labelColor": ink.text, "labelFontSize": size, "labelOverlap": step <= _LEAST,
        "labelFlush": False, "grid": False, "ticks": False, "domain": False, "titleColor": ink.soft,
        "titleFontSize": 12,
    }  # fmt: skip
    x = alt.X("test:N", sort=domain, scale=alt.Scale(domain=domain, padding=0), title="tested on →",
              axis=alt.Axis(orient="top", labelAngle=-90, titleAnchor="start", labelLimit=_HEADS,
                            **shared))  # fmt: skip
    rows: dict[str, Any] = in_two_lines(domain) if step == STEP else {}
    y = alt.Y("train:N", sort=domain, scale=alt.Scale(domain=domain, padding=0), title="trained on ↓",
              axis=alt.Axis(titleAngle=0, titleAnchor="end", titleAlign="left", titleY=-10, titleX=-NAMES,
                            labelLimit=NAMES, **rows, **shared))  # fmt: skip
    return alt.Chart(frame).encode(x=x, y=y)


def _limit(frame: pl.DataFrame) -> float:
    """Return the distance that gets the full colour: the largest one, and never so little that noise glows."""
    largest = frame["shade"].abs().max()
    return max(float(largest), 0.1) if isinstance(largest, int | float) else 0.1


def _shade(frame: pl.DataFrame, against: str, ink: Ink) -> alt.Color:
    limit = round(_limit(frame), 2)
    domain = [-limit, -limit / 2, 0, limit / 2, limit]
    ends = "format(datum.value, '+.2f') + (datum.value < 0 ? ' worse' : ' better')"
    legend = alt.Legend(title=f"than {against}", titleAnchor="middle", titleFontWeight="normal", titleLimit=190,
                        orient="top", type="gradient", gradientLength=190, gradientThickness=12,
                        values=[-limit, limit], labelExpr=ends, offset=10)  # fmt: skip
    scale = alt.Scale(domain=domain, range=list(ink.worse_to_better), clamp=True, interpolate="rgb")
    return alt.Color("shade:Q", scale=scale, legend=legend)


def _numbers(scored: alt.Chart, frame: pl.DataFrame, field: str, columns: int, cells: int, ink: Ink) -> list[alt.Chart]:
    """Write each score into its cell where there is room, which on a phone the browser must decide."""
    if cells > WHOLE:
        return []
    room = alt.expr(f"width / {columns} < 30 ? 0 : width / {columns} < 40 ? 10 : 12")
    strong = f"abs(datum.shade) > {0.72 * _limit(frame)}"
    colour = alt.condition(strong, alt.value(ink.on_strong), alt.value(ink.text))
    number = alt.Text(f"{field}:Q", format=".2f" if field == "value" else "+.2f")
    return [scored.mark_text(fontSize=room, fontWeight=500).encode(text=number, color=colour)]


def _signed(frame: pl.DataFrame, undecided: str) -> pl.DataFrame:
    hatched = pl.col("state").is_in(list(HATCHED))
    sign = pl.when(hatched).then("state").when(pl.col("crosses").fill_null(False)).then(pl.lit(undecided))
    return frame.with_columns(sign=sign).drop_nulls("sign")


def _signs(frame: pl.DataFrame, undecided: str, domain: list[str], step: int, ink: Ink) -> list[alt.Chart]:
    """Hatch what has no score, dot what cannot be told from the reference, and explain both in the legend."""
    signs = _signed(frame, undecided)
    if signs.is_empty():
        return []
    shown = [name for name in (*HATCHED, undecided) if name in signs["sign"].to_list()]
    shapes = alt.Shape(
        "sign:N",
        scale=alt.Scale(domain=shown, range=[HATCHED.get(name, DOT) for name in shown]),
        legend=alt.Legend(
            title=None, orient="bottom", direction="vertical", symbolSize=120, symbolStrokeColor=ink.soft,
            symbolStrokeWidth=1.6, labelLimit=320, rowPadding=4,
        ),
    )  # fmt: skip
    square = alt.expr(f"pow(min(width, height) / {len(domain)} * 0.86, 2)")
    hatch = _placed(signs.filter(pl.col("sign") != undecided), domain, step, ink)
    dots = _placed(signs.filter(sign=undecided), domain, step, ink)
    corner = alt.X("test:N", sort=domain, bandPosition=0.86, scale=alt.Scale(domain=domain, padding=0))
    above = alt.Y("train:N", sort=domain, bandPosition=0.2, scale=alt.Scale(domain=domain, padding=0))
    return [
        hatch.mark_point(size=square, filled=False, stroke=ink.soft, strokeWidth=1.1).encode(shape=shapes),
        dots.mark_point(size=70, filled=False, stroke=ink.text, strokeWidth=2).encode(shape=shapes, x=corner, y=above),
    ]


TIPS = {
    "train": "trained on", "test": "tested on", "title": "left out", "value": "", "low": "from", "high": "to",
    "constant": "constant", "other": "compared with", "shade": "difference", "n_train": "cells trained on",
    "n": "cells tested on", "left_out": "copies removed", "seeds": "seeds", "state": "state", "reason": "why",
}  # fmt: skip


def tips(frame: pl.DataFrame, metric: str) -> list[alt.Tooltip]:
    """Return the tooltip of those of `TIPS` that the frame has, scores with two decimals."""
    tooltips = []
    for name, title in TIPS.items():
        if name in frame.columns:
            kind = frame.schema[name]
            form = ".2f" if kind.is_float() else "," if kind.is_integer() else ""
            tooltips.append(alt.Tooltip(f"{name}:{'Q' if form else 'N'}", title=title or metric, format=form))
    return tooltips


def left_out(frame: pl.DataFrame, metric: str, ink: Ink) -> alt.LayerChart:
    """Draw how each study, or data set, is scored by a model that has seen all the others: a bar from the constant.

    Columns: `title` (what was left out), `value`, `low`, `high`, `constant`, `shade`, `n`.
    """
    order = frame.sort("shade", descending=True)["title"].to_list()
    y = alt.Y("title:N", sort=order, title=None, axis=alt.Axis(
        labelLimit=NAMES, grid=False, labelFlush=False, labelOverlap=False, labelColor=ink.text,
        ticks=False, **in_two_lines(order)))  # fmt: skip
    bounds = pl.concat([frame[c].drop_nulls() for c in ("value", "low", "high", "constant")])
    low, high = (float(v) for v in (bounds.min() or 0, bounds.max() or 1))  # type: ignore[arg-type]
    scale = alt.Scale(domain=[min(low, 0 if low > 0 else low - 0.05), max(high, 1 if high > 0.85 else high + 0.05)])
    base = alt.Chart(frame).encode(y=y, tooltip=tips(frame, metric))
    better, worse = ink.worse_to_better[-1], ink.worse_to_better[0]
    colour = alt.condition("datum.shade > 0", alt.value(better), alt.value(worse))
    x = alt.X("constant:Q", scale=scale, title=metric, axis=alt.Axis(format="~g", tickCount=6))
    return stack(
        ink,
        STEP * max(frame.height, 1) + 64,
        base.mark_bar(height=13, opacity=0.9).encode(x=x, x2="value:Q", color=colour),
        base.mark_rule(strokeWidth=1.6, color=ink.text).encode(
            x=alt.X("low:Q", scale=scale, title=metric), x2="high:Q"
        ),
        base.mark_tick(thickness=3, size=21, color=ink.text).encode(x=alt.X("constant:Q", scale=scale, title=metric)),
        base.mark_point(size=60, filled=True, opacity=1, stroke=ink.paper, strokeWidth=1).encode(
            x=alt.X("value:Q", scale=scale, title=metric), color=colour
        ),
    )
