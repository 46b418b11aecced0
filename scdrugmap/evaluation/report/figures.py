"""The figures of a report: polars in, SVG out. vl-convert draws them here, without a browser or a network."""

from __future__ import annotations

import io
from dataclasses import dataclass

import altair as alt
import polars as pl

from scdrugmap.evaluation.metrics.metrics import METRICS

# Blue below and orange above, as on the pages: they differ in lightness too, so a grey print can be read.
SPLIT_COLOURS = {"cell": "#C9650E", "other": "#1F66A8"}
DIVERGING = ("#B9590A", "#F4F6F7", "#1F66A8")
INK, SOFT = "#17212B", "#5D6A76"
WIDTH, ROW = 460, 20  # pixels


@dataclass(frozen=True)
class Figure:
    """A picture and what it shows in words, for those who cannot see it."""

    name: str
    alt: str
    svg: str


def intervals(rows: pl.DataFrame, name: str, metric: str, where: str) -> Figure:
    """Draw scores with their intervals, the paper's split beside the leak-safe ones, and the constant's value.

    `rows` has `entry`, `split_by`, `value`, `ci_low`, `ci_high` and `constant`.
    """
    title = METRICS[metric].title
    others = sorted(set(rows["split_by"]) - {"cell"})
    splits = [*(["cell"] if "cell" in rows["split_by"] else []), *others]
    colours = [SPLIT_COLOURS["cell" if split == "cell" else "other"] for split in splits]
    y = alt.Y("entry:N", title=None, sort=None, axis=alt.Axis(labelLimit=260))
    shift = alt.YOffset("split_by:N", sort=splits)
    colour = alt.Color("split_by:N", title="split by", scale=alt.Scale(domain=splits, range=colours))
    shape = alt.Shape("split_by:N", title="split by", scale=alt.Scale(domain=splits))
    base = alt.Chart(_values(rows))
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False))
    bars = base.mark_rule(strokeWidth=1.5).encode(y=y, yOffset=shift, x="ci_low:Q", x2="ci_high:Q", color=colour)
    marks = base.mark_point(filled=True, size=60).encode(y=y, yOffset=shift, x=x, color=colour, shape=shape)
    constant = base.mark_tick(color=INK, thickness=2, size=ROW).encode(y=y, x="constant:Q")
    said = [f"{row['entry']} by {row['split_by']} {_with_interval(row)}" for row in rows.to_dicts()]
    height = ROW * max(len(splits), 1) * max(rows["entry"].n_unique(), 1)
    chart = (constant + bars + marks).properties(width=WIDTH, height=height, title=f"{title}: {where}")
    alt_text = f"{title} on {where}, with 95 % intervals; the black tick is the constant classifier. {'; '.join(said)}."
    return Figure(name, alt_text, _svg(chart))


def gaps(rows: pl.DataFrame, name: str, metric: str, where: str) -> Figure:
    """Draw how much higher each entry scores by cell than leak-safe: `entry`, `gap`, `low`, `high`."""
    title = f"{METRICS[metric].title}, by cell minus leak-safe"
    y = alt.Y("entry:N", title=None, sort=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(_values(rows))
    bars = base.mark_rule(strokeWidth=1.5, color=SPLIT_COLOURS["cell"]).encode(y=y, x="low:Q", x2="high:Q")
    marks = base.mark_point(filled=True, size=60, color=SPLIT_COLOURS["cell"]).encode(
        y=y, x=alt.X("gap:Q", title=title)
    )
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=SOFT, strokeDash=[4, 3]).encode(x="zero:Q")
    said = [f"{row['entry']} {_with_interval(row, 'gap', 'low', 'high')}" for row in rows.to_dicts()]
    chart = (zero + bars + marks).properties(width=WIDTH, height=ROW * len(rows), title=f"Leakage gap: {where}")
    return Figure(name, f"Leakage gap on {where}, with 95 % intervals: {'; '.join(said)}.", _svg(chart))


def matrix(rows: pl.DataFrame, name: str, metric: str, where: str) -> Figure:
    """Draw a transfer matrix (`transfer.matrix`): colour is the distance from the constant classifier."""
    title = METRICS[metric].title
    rows = rows.with_columns(
        shown=pl.when(pl.col("value").is_not_null()).then(pl.col("value").round(2).cast(pl.String)).otherwise("state")
    )
    most = max(0.05, float(rows["better"].abs().max() or 0.0))  # type: ignore[arg-type]
    names = list(dict.fromkeys(rows["train"]))
    x = alt.X("test:N", title="tested on", sort=names, axis=alt.Axis(labelAngle=-30, labelLimit=240))
    y = alt.Y("train:N", title="trained on", sort=names, axis=alt.Axis(labelLimit=240))
    scale = alt.Scale(domain=[-most, 0, most], range=list(DIVERGING), interpolate="rgb")
    base = alt.Chart(_values(rows)).encode(x=x, y=y)
    cells = base.mark_rect(stroke="white").encode(color=alt.Color("better:Q", title="above constant", scale=scale))
    strong = f"abs(datum.better) > {0.6 * most}"
    text = base.mark_text(fontSize=11).encode(
        text="shown:N", color=alt.condition(strong, alt.value("white"), alt.value(INK))
    )
    n = len(names)
    said = [f"{r['train']} to {r['test']} {r['shown']}" for r in rows.to_dicts() if r["train"] != r["test"]]
    chart = (cells + text).properties(width=max(120, 90 * n), height=max(80, 40 * n), title=f"{title}: {where}")
    alt_text = f"Transfer matrix of {where}, {title}; blue is above the constant classifier, orange below."
    return Figure(name, f"{alt_text} {'; '.join(said)}.", _svg(chart))


def curves(rows: pl.DataFrame, name: str, metric: str, where: str) -> Figure:
    """Draw few-shot curves (`curves.curves` of one target): `entry`, `point`, `value`, `low`, `high`, `constant`."""
    title = METRICS[metric].title
    points = list(dict.fromkeys(rows.sort("shots", nulls_last=True)["point"]))
    base = alt.Chart(_values(rows.select("entry", "point", "value", "low", "high", "constant")))
    x = alt.X("point:O", title="labelled target cells a class", sort=points, axis=alt.Axis(labelAngle=0))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    colour, shape = alt.Color("entry:N", title="entry"), alt.Shape("entry:N", title="entry")
    bars = base.mark_rule().encode(x=x, y="low:Q", y2="high:Q", color=colour)
    lines = base.mark_line().encode(x=x, y=y, color=colour)
    marks = base.mark_point(filled=True, size=50).encode(x=x, y=y, color=colour, shape=shape)
    constant = base.mark_tick(color=INK, thickness=2).encode(x=x, y="constant:Q")
    said = [f"{r['entry']} at {r['point']} {_with_interval(r, 'value', 'low', 'high')}" for r in rows.to_dicts()]
    chart = (constant + bars + lines + marks).properties(width=WIDTH, height=240, title=f"{title}: {where}")
    return Figure(name, f"Few-shot curves on {where}, {title}: {'; '.join(said)}.", _svg(chart))


def _with_interval(row: dict[str, float], value: str = "value", low: str = "ci_low", high: str = "ci_high") -> str:
    if row[value] is None:
        return "not defined"
    return f"{row[value]:.2f}" + ("" if row[low] is None else f" [{row[low]:.2f}, {row[high]:.2f}]")


def _values(rows: pl.DataFrame) -> alt.Data:
    """Return rows inside the chart: what is drawn reads no file."""
    return alt.Data(values=rows.to_dicts())


def _svg(chart: alt.LayerChart) -> str:
    file = io.StringIO()
    chart.configure(background="white", font="sans-serif").configure_title(anchor="start").save(file, format="svg")
    return file.getvalue()
