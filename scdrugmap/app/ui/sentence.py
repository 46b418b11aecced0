"""Sentences and captions that are made of the numbers they stand beside, so that they cannot disagree with them."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from scdrugmap.app.ui.format import count, interval, number
from scdrugmap.evaluation.metrics.metrics import METRICS

WHY_THE_TWO_DIFFER = """
Cells of one patient, plate or time point resemble each other far more than cells of another. When cells are divided at
random, the test half holds neighbours of the training half, and a classifier can score by recognising *where a cell
comes from*. Left-out patients, samples or studies take that away, and only what carries over counts.

In 22 of the 36 primary data sets "sensitive" means *before treatment* and "resistant" means *after*, and in 14 there
is one sample per class: there the label **is** the sample. The published numbers split by cell; we show both, and
beside them what a classifier scores that calls every cell sensitive and has looked at nothing.
"""


def headline_caption(rows: pl.DataFrame, metric: str, date: str, rule: str, samples: int) -> list[str]:
    """Caption of the figure on the first page."""
    return [
        f"{metric} of {rows.height} classifiers on {rows['on'][0]}",
        extent(max(rows["n"]), samples, rows["test"].to_list()[0]),
        f"k-fold over cells (the paper's split) beside k-fold that keeps each {rows['safe_name'][0]} whole",
        "whisker: 95 % bootstrap interval of the leak-safe score, over samples where there are several",
        f"vertical tick: {rule}",
        f"measured here{f' on {date}' if date else ''}",
    ]


def extent(cells: int, samples: int, test: Sequence[str]) -> str:
    """Say what a figure rests on: cells and, where a run says how many, samples and the tested data sets."""
    counts = {"cell": cells, "sample": samples, "data set": len(test) if samples else 0}
    return " / ".join(f"{count(n)} {name}{'s' * (n != 1)}" for name, n in counts.items() if n)


def score(value: float | None, low: float | None, high: float | None) -> str:
    """Write a score with its interval."""
    return f"{number(value)} {interval(low, high)}".strip()


def listed(values: Sequence[str]) -> str:
    """Join words as a sentence does."""
    values = list(values)
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + f" and {values[-1]}" if values else "none"


def title_of(metric: str) -> str:
    """Return the name of a metric on screen."""
    return METRICS[metric].title


INTERVAL = "95 % bootstrap interval, over samples where there are several, else over cells"


def made_on(*, simulated: bool, date: str) -> str:
    """Say where scores come from: simulated cells are called so in every caption."""
    how = "simulated, not measured on real cells" if simulated else "measured here"
    return how + (f" on {date}" if date else "")
