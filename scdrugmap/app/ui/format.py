"""What the words on screen mean, once: the help tips, and the number formats of every page."""

from __future__ import annotations

import math
from datetime import timedelta

from scdrugmap.evaluation.metrics.metrics import METRICS


def number(value: float | None, decimals: int = 2) -> str:
    """Format a score: two decimals, a real minus, a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{decimals}f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """Format an interval in brackets, or nothing where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(low)}, {number(high)}]"


def count(value: float | None) -> str:
    """Format a count with thin spaces between thousands."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{round(value):,}".replace(",", "\u202f")


def percent(value: float | None, decimals: int = 0) -> str:
    """Format a share between 0 and 1 as prose percent."""
    if value is None or math.isnan(value):
        return "–"
    return f"{100 * value:.{decimals}f}\u202f%"


def duration(seconds: float | None) -> str:
    """Format seconds as 3.2 s, 4 min or 2 h."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{timedelta(seconds=round(seconds)).total_seconds() / 3600:.1f} h"


def parameters(value: float | None) -> str:
    """Format a number of parameters as 52.5 M or 8.03 B."""
    if value is None or math.isnan(value):
        return "–"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}\u202f{unit}"
    return f"{value:.0f}"


def megabytes(size: float) -> str:
    """Format a size in megabytes as 84 MB or 16.1 GB."""
    return f"{size:.0f}\u202fMB" if size < 1000 else f"{size / 1000:.3g}\u202fGB"


def plain(text: str) -> str:
    """Escape what Markdown would read as markup in a text that came from a file or a person."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()#+!|<>~$:" else letter for letter in text)


def constant_f1(prevalence: float | None) -> float | None:
    """Return the F1 of calling every cell sensitive, where `prevalence` of the cells are."""
    return None if prevalence is None else METRICS["f1"].constant(prevalence)
