"""Sentences and captions that are made of the numbers they stand beside, so that they cannot disagree with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from scdrugmap.app.words import count, duration, interval, number, percent, split
from scdrugmap.data.catalog.catalog import CellCount
from scdrugmap.evaluation.metrics.metrics import METRICS

GROUPS = 40  # samples or clusters that are drawn
WHY_THE_TWO_DIFFER = """
Cells of one patient, plate or time point resemble each other far more than cells of another. When cells are divided at
random, the test half holds neighbours of the training half, and a classifier can score by recognising *where a cell
comes from*. Left-out patients, samples or studies take that away, and only what carries over counts.

In 22 of the 36 primary data sets "sensitive" means *before treatment* and "resistant" means *after*, and in 14 there
is one sample per class: there the label **is** the sample. The published numbers split by cell; we show both, and
beside them what a classifier scores that calls every cell sensitive and has looked at nothing.
"""


def headline(rows: pl.DataFrame, metric: str) -> str:
    """Say what the figure on the first page shows."""
    best = rows.filter(pl.col("kind") != "baseline").head(1)
    best = best if best.height else rows.head(1)
    title, by_cell, safe, constant = (best[c].item() for c in ("title", "by_cell", "safe", "constant"))
    base = rows.filter(pl.col("kind") == "baseline").head(1)
    verdict = "above" if round(safe, 2) > round(constant, 2) else "not above"  # as printed: 0.80 is not above 0.80
    text = (
        f"Split by cell, as in the paper, **{title}** scores {metric} **{number(by_cell)}**. With each "
        f"{best['safe_name'].item()} kept whole it scores **{number(safe)}**, {verdict} the {number(constant)} of "
        "calling every "
        "cell sensitive."
    )
    if base.height and base["title"].item() != title:
        text += f" The best baseline, {base['title'].item()}, reaches {number(base['safe'].item())}."
    return text


def headline_caption(rows: pl.DataFrame, metric: str, date: str, rule: str, samples: int) -> list[str]:
    """Caption of the figure on the first page."""
    return [
        f"{metric} of {rows.height} classifiers on {rows['on'][0]}",
        extent(max(rows["n"]), samples, rows["test"][0]),
        f"k-fold over cells (the paper's split) beside k-fold that keeps each {rows['safe_name'][0]} whole",
        "whisker: 95 % bootstrap interval of the leak-safe score, over samples where there are several",
        f"vertical tick: {rule}",
        f"measured here{f' on {date}' if date else ''}",
    ]


def extent(cells: int, samples: int, test: str) -> str:
    """Say what a figure rests on: cells and, where a run says how many, samples and data sets (`test`, joined by +)."""
    counts = {"cell": cells, "sample": samples, "data set": len(test.split("+")) if samples else 0}
    return " / ".join(f"{count(n)} {name}{'s' * (n != 1)}" for name, n in counts.items() if n)


def installed(found: Mapping[str, Any], device: str) -> str:
    """Say what is on this machine."""
    ready, missing, remote = found["ready"], found["missing"], found["remote"]
    rest = f" {len(missing)} need weights." if missing else ""
    rest += f" Asked elsewhere, with a key and at a price: {', '.join(remote)}." if remote else ""
    lines = [
        f"**Computes on** {device}.",
        f"**Ready models:** {', '.join(ready) or 'none'}.{rest}",
        f"**Data sets built:** {found['built']}.",
        f"**Measured runs:** {found['runs']}" + (f", the last on {found['measured']}." if found["measured"] else "."),
    ]
    return "  \n".join(lines)


def looking_at(picks: Mapping[str, str], rows: pl.DataFrame) -> str:
    """Say in one sentence what the pickers of the leaderboard chose."""
    training = {
        "cell": "random cells were held out, as in the paper: cells of one patient stand on both sides",
        "sample": "whole samples were held out",
        "patient_or_line": "whole patients or cell lines were held out",
        "dataset": "whole data sets were held out",
        "study": "whole studies were held out",
    }[picks["split_by"]]
    how = {
        "freeze": "a head on frozen embeddings",
        "lora": "encoders fine-tuned with LoRA",
        "prompt": "prompted language models",
        "any": "every strategy",
    }[picks["strategy"]]
    merged = (
        "cells merged and divided" if picks["protocol"] == "pooled" else "trained on some data sets, tested on another"
    )
    kinds = [f"{rows.filter(source=kind).height} {kind}" for kind in ("measured", "reported", "simulated")]
    shown = listed([kind for kind in kinds if not kind.startswith("0 ")]) if rows.height else "nothing"
    return (
        f"You are looking at **{picks['metric']}** of {how} on **{picks['on']}**, {picks['protocol']} ({merged}), "
        f"where {training}. Shown: {shown}."
    )


def ranking_caption(
    rows: pl.DataFrame, picks: Mapping[str, str], dates: str, rule: str, samples: int
) -> list[str]:  # fmt: skip
    """Caption of the leaderboard's figure."""
    largest = rows.sort("n", nulls_last=False)[-1]
    marks = ["filled: measured here"] if "measured" in rows["source"].to_list() else []
    marks += ["hollow: reported by the paper"] if "reported" in rows["source"].to_list() else []
    marks += ["dashed: simulated cells"] if "simulated" in rows["source"].to_list() else []
    return [
        f"{picks['metric']} on {picks['on']}",
        extent(largest["n"][0] or 0, samples, largest["test"][0]),
        f"{picks['protocol']}, split by {split(picks['split_by'])}"
        + (f", {picks['shots']} shots" if picks["shots"] != "all" else ""),
        "; ".join(marks),
        "whisker: 95 % bootstrap interval, over samples where there are several"
        if rows["ci_low"].is_not_null().any()
        else "no intervals were published",
        f"vertical tick: the constant classifier on the same cells ({rule})",
        dates,
    ]


def at_constant(rows: pl.DataFrame) -> str:
    """Say which reported numbers a classifier that looked at nothing would have got."""
    lines = [
        f"**{row['title']}, {row['on']}: reported {number(row['value'], 3)}.** There the share of sensitive cells is "
        f"p = {number(row['prevalence'], 3)}, and calling every cell sensitive scores 2p/(1+p) = "
        f"**{number(row['constant'], 3)}**. Without the predictions nobody can tell the two apart."
        for row in rows.iter_rows(named=True)
    ]
    return "  \n".join(lines)


def share(part: Mapping[str, Any]) -> str:
    """Write a share with its interval: 41 % [38, 44]."""
    if part["share"] is None:
        return "–"
    return f"{percent(part['share'])} [{100 * part['low']:.0f}–{100 * part['high']:.0f}]"


def share_unit(part: Mapping[str, Any]) -> str:
    """Say what an interval was drawn over."""
    plural = "s" if part["n_units"] != 1 else ""
    return f"95 % interval over {count(part['n_units'])} {part['unit']}{plural}"


def score(value: float | None, low: float | None, high: float | None) -> str:
    """Write a score with its interval."""
    return f"{number(value)} {interval(low, high)}".strip()


def remaining(seconds: float | None) -> str:
    """Say how long a stage will still take."""
    return f"about {duration(seconds)} left in this step" if seconds is not None else ""


def listed(values: Sequence[str]) -> str:
    """Join words as a sentence does."""
    values = list(values)
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + f" and {values[-1]}" if values else "none"


WHAT_MUST_BE_IN_THE_FILE = """
* **Raw counts**, in `X`, `raw` or a layer; they are looked for. Log-normalised data are recognised, and undone where
  that is possible. Scaled data (z-scores) are refused: what the model needs is gone from them.
* **Gene symbols or Ensembl ids**, human; old symbols and version suffixes are understood.
* No labels are needed. If there is a `response` column, the result is compared with it.
* A column such as `sample` or `patient` lets intervals be drawn over samples instead of cells.
"""

NEVER_ALONE = (
    "A score is never shown without what a classifier gets that calls every cell *sensitive* and has looked at "
    "nothing. "
    "Numbers measured here are filled and lead to their run; numbers that the paper states are hollow."
)


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
    found = provenance["held_out"]
    value = found.get("value")
    if value is None:
        return "not tested", "no study was left to test it on"
    return number(value), f"{title_of(found['metric'])}; constant {number(found.get('constant'))}"


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
    found = provenance["held_out"]
    low, high, constant = found.get("low"), found.get("high"), found.get("constant")
    if low is not None and constant is not None and low > constant:
        return ""
    if found.get("value") is None:
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
    found, trained = provenance["held_out"], [str(name) for name in provenance["trained_on"]]
    tested = score(found.get("value"), found.get("low"), found.get("high"))
    honest = (
        f"On data that it had not seen ({found['protocol']}) this reference scored {title_of(found['metric'])} "
        f"**{tested}**; "
        f"a classifier that looks at nothing scores {number(found.get('constant'))}. {found['verdict']}"
        if found.get("value") is not None
        else f"{found['verdict']}"
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


def found(rows: pl.DataFrame, of: int, cells: int) -> str:
    """Say how much of the catalogue the filters leave."""
    return (
        f"**{rows.height} of {of}** data sets · **{count(cells)}** cells · **{rows['accession'].n_unique()}** "
        "studies · "
        f"**{int(rows['built'].sum())}** built on this machine"
    )


def catalogue_caption(rows: pl.DataFrame, cells: CellCount) -> list[str]:
    """Caption of the figures of the catalogue."""
    missing = len(cells.uncounted)
    return [
        f"{rows.height} data sets, {count(cells.total)} cells as the study's supplementary tables count them",
        "cells that data sets share count in each",
        f"no source gives the cells of {missing} of them" if missing else "",
    ]


def title_of(metric: str) -> str:
    """Return the name of a metric on screen."""
    return METRICS[metric].title
