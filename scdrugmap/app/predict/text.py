"""Sentences and warnings about a prediction, made of the numbers they stand beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from scdrugmap.app.ui.format import count, duration, number, percent
from scdrugmap.app.ui.sentence import listed, score, title_of

GROUPS = 40  # samples or clusters that are drawn


def share(part: Mapping[str, Any]) -> str:
    """Write a share with its interval: 41 % [38, 44]."""
    if part["share"] is None:
        return "–"
    return f"{percent(part['share'])} [{100 * part['low']:.0f}–{100 * part['high']:.0f}]"


def share_unit(part: Mapping[str, Any]) -> str:
    """Say what an interval was drawn over."""
    plural = "s" if part["n_units"] != 1 else ""
    return f"95 % interval over {count(part['n_units'])} {part['unit']}{plural}"


def remaining(seconds: float | None) -> str:
    """Say how long a stage will still take."""
    return f"about {duration(seconds)} left in this step" if seconds is not None else ""


WHAT_MUST_BE_IN_THE_FILE = """
* **Raw counts**, in `X`, `raw` or a layer; they are looked for. Log-normalised data are recognised, and undone where
  that is possible. Scaled data (z-scores) are refused: what the model needs is gone from them.
* **Gene symbols or Ensembl ids**, human; old symbols and version suffixes are understood.
* No labels are needed. If there is a `response` column, the result is compared with it.
* A column such as `sample` or `patient` lets intervals be drawn over samples instead of cells.
"""


def privacy(keep_hours: float, *, public: bool) -> str:
    """Say what happens to a file, before it is brought."""
    where = "this shared server" if public else "the machine that runs this app"
    sent = "" if public else ", unless you choose a model that is asked over the network and agree to what it is sent"
    return (
        f"**What happens to your file:** it is copied into a folder of its own on {where} and read only by this "
        f"app. It is deleted when its job is done and you have closed the page, results after {keep_hours:.0f} h; the "
        f"Delete button removes both at once. Nothing is sent anywhere else{sent}. Whoever has the link of a job can "
        "see its result."
    )


def held_out(provenance: Mapping[str, Any]) -> tuple[str, str]:
    """Say how the reference did on studies that it had not seen, and what looking at nothing scores there."""
    result = provenance["held_out"]
    value = result.get("value")
    if value is None:
        return "not tested", "no study was left to test it on"
    return number(value), f"{title_of(result['metric'])}; constant {number(result.get('constant'))}"


def spread(p_resistant: pl.Series, cut: float) -> str:
    """Say how many cells reach the threshold, and how far apart the cells are at all."""
    above = p_resistant.filter(p_resistant >= cut).len() / max(p_resistant.len(), 1)
    low, high = p_resistant.quantile(0.25), p_resistant.quantile(0.75)
    return (
        f"**{percent(above)}** of all cells reach {number(cut)}; the middle half lies between {number(low)} and "
        f"{number(high)}."
    )


def drawn(shown: int, cells: int) -> str:
    """Say how many of the cells a map shows."""
    some = f"{count(shown)} of {count(cells)} cells drawn, chosen at random"
    return some if shown < cells else f"all {count(cells)} cells drawn"


def only_the_largest(groups: int) -> str:
    """Say that only the largest samples or clusters are drawn; empty where all are."""
    return f"the {GROUPS} largest are drawn" if groups > GROUPS else ""


def untaught(metrics: Mapping[str, Any]) -> str:
    """Say that scores against a file's labels test something; empty where a caveat says that they do not."""
    return "" if metrics["caveat"] else "nothing was learnt from these labels"


def no_evidence(provenance: Mapping[str, Any]) -> str:
    """Warn where the reference was not shown to beat chance on studies it had not seen; empty where it was."""
    result = provenance["held_out"]
    low, high, constant = result.get("low"), result.get("high"), result.get("constant")
    if low is not None and constant is not None and low > constant:
        return ""
    if result.get("value") is None:
        why = "No study was left to test this reference on."
    elif high is not None and constant is not None and high < constant:
        why = "On studies that it had not seen, this reference did worse than a classifier that looks at nothing."
    else:
        why = (
            "On studies that it had not seen, this reference could not be told from a classifier that looks at nothing."
        )
    return f"{why} Read what follows as a demonstration, not as evidence about these cells."


def what_it_is(provenance: Mapping[str, Any]) -> str:
    """Say what P(resistant) is here, how well its reference did where it was tested, and what it is not."""
    result, trained = provenance["held_out"], [str(name) for name in provenance["trained_on"]]
    tested = score(result.get("value"), result.get("low"), result.get("high"))
    honest = (
        f"On data that it had not seen ({result['protocol']}) this reference scored {title_of(result['metric'])} "
        f"**{tested}**; "
        f"a classifier that looks at nothing scores {number(result.get('constant'))}. {result['verdict']}"
        if result.get("value") is not None
        else f"{result['verdict']}"
    )
    return (
        f"**What this score is.** The {provenance['calibration']}-calibrated probability that a head fitted on "
        f"{listed(trained)} "
        f"gives to the label *resistant*, on the embedding of each cell by {provenance['model']}. The model knows "
        f"{percent(provenance['share_genes'])} of the file's genes and {percent(provenance['share_counts'])} of its "
        "counts.  \n"
        f"**How far to trust it.** {honest}  \n"
        "**What it is not.** It is not a clinical probability, not specific to a drug that the reference never saw, "
        "and for "
        "novel cells it is an extrapolation. Research use only."
    )
