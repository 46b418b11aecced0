"""Sentences and captions of the transfer page and of the models page's tabs, made of the numbers they stand beside."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from scdrugmap.app.ui.format import count, number, percent
from scdrugmap.app.ui.glossary import split
from scdrugmap.app.ui.sentence import INTERVAL, extent, listed, made_on
from scdrugmap.evaluation.analysis.significance import Comparison


def follows(pickers: str, shown: str) -> str:
    """Say which of the choices above a view follows, where it does not follow all."""
    return f"This view follows {pickers} of the choices above, and shows {shown}."


def reported_caption(rows: pl.DataFrame) -> list[str]:
    """Caption of the numbers that the paper states, and how many of them are below their constant."""
    below = rows.filter(pl.col("value") < pl.col("constant")).height
    return [
        f"{rows.height} numbers that the paper or its readers state, none reproduced here",
        "hollow: reported",
        "vertical tick: 2p/(1+p), p the share of sensitive cells in that stratum by the paper's supplementary tables",
        f"{below} of {rows.height} lie below it",
        "no intervals were published",
    ]


def facet_caption(rows: pl.DataFrame, picks: Mapping[str, str], date: str, most: int) -> list[str]:
    """Caption of the small multiples."""
    facet = picks["facet"].replace("_", " ")
    where = "on each set of cells" if facet == "all" else f"under each value of {facet}"
    marks = {"measured": "filled: measured", "reported": "hollow: reported", "simulated": "dashed: simulated"}
    return [
        f"{picks['metric']} {where}, the best {most} entries of each, all on one scale",
        f"{rows['panel'].n_unique()} panels",
        f"{picks['protocol']}, split by {split(picks['split_by'])}",
        "; ".join(mark for source, mark in marks.items() if source in rows["source"].to_list()),
        f"whisker: {INTERVAL}",
        "tick: the constant classifier on the same cells",
        date,
    ]


def few_shot_caption(
    rows: pl.DataFrame, target: str, picks: Mapping[str, str], date: str, *, simulated: bool
) -> list[str]:
    """Caption of the few-shot curves."""
    trained = max(rows["train"].list.len(), default=0)
    few = rows.filter(pl.col("shots") != "all")
    seeds, other = max(rows["seeds"], default=1), rows.filter(~pl.col("same_cells"))["shots"].unique().sort().to_list()
    other = [point for point in other if point != "all"]
    mean = ", a mean over seeds," if seeds > 1 else ","
    spread = "95 % t interval over seeds" if "seeds" in rows["interval"].to_list() else INTERVAL
    return [
        f"{picks['metric']} on {count(max(few['n'], default=0))} cells of {target}{mean} which no point trained on",
        f"trained on {trained} other data set{'s' * (trained != 1)} and on so many labelled cells a class of this one",
        f"whisker: {spread}" + (f", up to {seeds} seeds" if seeds > 1 else ""),
        f"{' and '.join(other)}: tested on other cells of the target than the rest" if other else "",
        "all: trained and tested on the target alone, on all its cells, samples kept whole"
        if "all" in rows["shots"].to_list()
        else "",
        made_on(simulated=simulated, date=date),
    ]


def calibration(table: pl.DataFrame) -> str:
    """Say what the curves mean for the entries in view."""
    lines = []
    for row in table.iter_rows(named=True):
        off = round(row["overconfident"], 2)  # as the table beside it prints it
        sure = (
            "more sure than it is right"
            if off > 0
            else "less sure than it could be"
            if off < 0
            else "neither too sure nor too little"
        )
        brier = "below" if round(row["brier"], 3) < round(row["constant"], 3) else "not below"
        lines.append(
            f"**{row['title']}** is off by {number(row['ece'])} on average, {sure}. Its Brier score "
            f"{number(row['brier'], 3)} is {brier} the {number(row['constant'], 3)} of giving every cell the same "
            "share."
        )
    return "  \n".join(lines)


def calibration_caption(table: pl.DataFrame, rows: pl.DataFrame, date: str) -> list[str]:
    """Caption of the reliability diagram."""
    units = " or ".join(sorted(f"{unit}s" for unit in table["unit"].unique()))
    return [
        f"share of resistant cells against P(resistant) on {rows['on'][0]}, {count(max(table['n'], default=0))} cells",
        f"{rows['protocol'][0]}, split by {split(rows['split_by'][0])}, out of fold",
        f"whisker: 95 % interval over {units}",
        "dashed: P means what it says; size of a dot: cells in the bin",
        date,
    ]


def significance_caption(comparison: Comparison, picks: Mapping[str, str]) -> list[str]:
    """Caption of the critical-difference diagram."""
    few = " (few: read the sentence above first)" if comparison.smallest_p_holm > comparison.alpha else ""
    return [
        f"mean rank by {picks['metric']} of {comparison.ranks.height} entries "
        f"over {comparison.n_datasets} data sets{few}",
        f"{picks['protocol']}, split by {split(picks['split_by'])}",
        f"bars join what Nemenyi's test does not tell apart at {percent(comparison.alpha)} (Demsar 2006)",
        "line: 95 % of ranks when data sets are drawn anew",
    ]


def gap_note(rows: pl.DataFrame) -> str:
    """Say what the intervals of leakage gaps rest on."""
    units = sorted({f"{unit}s" for unit in rows["gap_unit"].drop_nulls() if unit})
    if not units:
        return "No interval: the predictions of these runs are not on this machine."
    seeds = max(rows["gap_seeds"].drop_nulls(), default=1)
    mean = f", means of {seeds} seeds" if seeds > 1 else ""
    return (
        "Gap: how much better the score is by cell than leak-safe, 95 % bootstrap interval over "
        f"{' or '.join(units)}, both splits scored on the same draws{mean}. "
        "An interval above 0: the split by cell flatters."
    )


def cost_caption(frame: pl.DataFrame, picks: Mapping[str, str]) -> list[str]:
    """Caption of the score against cells a second."""
    marks = {"measured": "filled: score measured here", "reported": "hollow: score reported by the paper",
             "simulated": "dashed: score of simulated cells"}  # fmt: skip
    days, machines = frame["date"].unique().sort().to_list(), frame["machine"].unique().sort().to_list()
    return [
        f"{picks['metric']} on {frame['on'][0]} against cells embedded a second, end to end at float32, of "
        f"{frame['model'].n_unique()} models whose speed was measured",
        " or ".join(machines),
        "; ".join(mark for source, mark in marks.items() if source in frame["source"].to_list())
        + "; speeds are all measured",
        "dashed: what no other entry beats in both",
        "heads and baselines without an encoder have no speed here",
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
    ]


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
        extent(largest["n"][0] or 0, samples, largest["test"].to_list()[0]),
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


NEVER_ALONE = (
    "A score is never shown without what a classifier gets that calls every cell *sensitive* and has looked at "
    "nothing. "
    "Numbers measured here are filled and lead to their run; numbers that the paper states are hollow."
)
