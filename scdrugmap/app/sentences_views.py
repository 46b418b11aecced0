"""Sentences and captions of the transfer page and of the models page's tabs, made of the numbers they stand beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import polars as pl

from scdrugmap.app import boards_transfer
from scdrugmap.app.sentences import score
from scdrugmap.app.words import count, number, percent, split
from scdrugmap.evaluation.analysis.significance import Comparison
from scdrugmap.evaluation.results.run_record import Part, Run

HATCHED = {
    "confounded": "label and sample are one and the same there",
    "one class": "the cells tested, or those trained on, are of one class",
    "failed": "the run could not be done; the tooltip says why",
    "not run": "nobody has run it yet",
}
INTERVAL = "95 % bootstrap interval, over samples where there are several, else over cells"


def against_constant(better: float | None, crosses: bool | None) -> Literal["better", "worse", ""]:
    """Return on which side of its constant a score lies, "" where the two cannot be told apart.

    `better` is their difference, turned so that more is better; `crosses` tells whether the interval holds the
    constant, None where there is no interval: then nothing can be told.
    """
    if crosses is not False or not better:
        return ""
    return "better" if better > 0 else "worse"


def transfer(table: pl.DataFrame, picks: Mapping[str, Any]) -> str:
    """Say in one sentence what the matrix shows, and how many pairs are better than their constant."""
    rows = table.filter(state="measured")
    came = [against_constant(*row) for row in rows.select("better", "crosses").iter_rows()]
    above, below = came.count("better"), came.count("worse")
    shots = f" after {picks['shots']} labelled target cells a class" if picks["shots"] != "0" else ", zero-shot"
    text = (
        f"You are looking at **{picks['metric']}** of **{picks['entry']}** ({picks['strategy']}{shots}), trained on "
        "one data set and tested on another. "
        f"Of **{rows.height}** measured pairs, **{above}** clear the constant classifier of the tested data set, "
        f"**{below}** fall short of it, and {rows.height - above - below} cannot be told from it."
    )
    if picks["other"]:
        text += f" Colours show the difference to **{picks['with']}** on the same pairs."
    return text


def matrix_caption(table: pl.DataFrame, picks: Mapping[str, Any], date: str) -> list[str]:
    """Caption of the matrix."""
    rows, sets = table.filter(state="measured"), table["train"].n_unique()
    tested = float(rows.unique("test")["n"].sum())
    hatched = [f"{n} {state} ({HATCHED[state]})" for state, n in boards_transfer.states(table)]
    seeds = max(rows["seeds"], default=1)
    return [
        f"{picks['metric']} of {rows.height} pairs of {sets} data sets, {count(tested)} tested cells",
        f"split by {split(picks['split_by'])}: cells that stand in a tested data set never train",
        "colour: distance to the constant classifier of the column" if not picks["other"] else "colour: difference",
        ""
        if not rows["crosses"].any() and not picks["other"]
        else f"dot: the {INTERVAL} holds the constant"
        if not picks["other"]
        else f"dot: the intervals of the two overlap ({INTERVAL})",
        f"means of {seeds} seeds" if seeds > 1 else "",
        "; ".join(hatched),
        _made(rows["test"], date),
    ]


def _made(datasets: pl.Series, date: str) -> str:
    """Say where scores come from: simulated cells are called so in every caption."""
    how = "simulated, not measured on real cells" if datasets.str.starts_with("simulated").any() else "measured here"
    return how + (f" on {date}" if date else "")


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


def run_caption(whole: Part, record: Run) -> list[str]:
    """Caption of the metrics of one run."""
    unit = (
        f"95 % bootstrap interval over {count(whole.n_units)} {whole.unit}s" if whole.unit else "no interval was drawn"
    )
    share = f", {percent(whole.prevalence)} of them sensitive" if whole.prevalence is not None else ""
    return [
        f"{count(whole.n)} tested cells{share}",
        f"{record.experiment.protocol}, split by {split(record.experiment.split_by)}, out of fold",
        unit,
        f"measured here on {record.environment.date[:10]}",
    ]


def left_out_caption(rows: pl.DataFrame, picks: Mapping[str, Any], date: str) -> list[str]:
    """Caption of the bars under the matrix."""
    kept = split(rows["split_by"][0])
    return [
        f"{picks['metric']} on {rows.height} data sets, {count(float(rows['n'].sum()))} cells, each tested by "
        f"{picks['entry']} trained on the others",
        f"split by {kept}: nothing of the tested {kept} trains",
        f"bar: from the constant classifier (tick) to the score; line: {INTERVAL}",
        _made(rows["title"], date),
    ]


def pair(row: Mapping[str, Any], picks: Mapping[str, Any]) -> str:
    """Say how a pair came out against its constant."""
    told = {
        "better": "the model is clearly better",
        "worse": "the model is clearly worse",
        "": "the two cannot be told apart",
    }[against_constant(row["better"], row["crosses"])]
    return (
        f"**{picks['entry']}**, trained on *{row['train']}*, scores {picks['metric']} "
        f"**{score(row['value'], row['ci_low'], row['ci_high'])}** on *{row['test']}*. A classifier that looks at "
        f"nothing scores {number(row['constant'])}: {told}."
    )


def pair_caption(row: Mapping[str, Any], picks: Mapping[str, Any], part: Part, date: str) -> list[str]:
    """Caption of a pair."""
    return [
        f"{count(part.n)} cells of {row['test']}",
        f"cross-data, split by {split(picks['split_by'])}, {picks['shots']} shots",
        f"95 % bootstrap interval over {count(part.n_units)} {part.unit}s" if part.unit else "no interval was drawn",
        f"figures and table: one of {row['seeds']} seeds; the sentence: their mean" if row["seeds"] > 1 else "",
        f"measured here on {date}",
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


def few_shot_caption(rows: pl.DataFrame, target: str, picks: Mapping[str, str], date: str) -> list[str]:
    """Caption of the few-shot curves."""
    sides = rows.filter(pl.col("train") != "")["train"].unique().to_list()
    trained = len(sides[0].split("+")) if sides else 0
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
        _made(rows["test"], date),
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


def significance_caption(found: Comparison, picks: Mapping[str, str]) -> list[str]:
    """Caption of the critical-difference diagram."""
    few = " (few: read the sentence above first)" if found.smallest_p_holm > found.alpha else ""
    return [
        f"mean rank by {picks['metric']} of {found.ranks.height} entries over {found.n_datasets} data sets{few}",
        f"{picks['protocol']}, split by {split(picks['split_by'])}",
        f"bars join what Nemenyi's test does not tell apart at {percent(found.alpha)} (Demsar 2006)",
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
