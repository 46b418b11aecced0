"""Sentences and captions of the transfer page, made of the numbers they stand beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import polars as pl

from scdrugmap.app.transfer import frames
from scdrugmap.app.ui.format import count, number
from scdrugmap.app.ui.glossary import split
from scdrugmap.app.ui.sentence import INTERVAL, made_on, score
from scdrugmap.evaluation.results.run_record import FoldScores

_HATCHED = {
    "confounded": "label and sample are one and the same there",
    "one class": "the cells tested, or those trained on, are of one class",
    "failed": "the run could not be done; the tooltip says why",
    "not run": "nobody has run it yet",
}


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
    verdicts = [against_constant(*row) for row in rows.select("better", "crosses").iter_rows()]
    above, below = verdicts.count("better"), verdicts.count("worse")
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


def matrix_caption(table: pl.DataFrame, picks: Mapping[str, Any], date: str, *, simulated: bool) -> list[str]:
    """Caption of the matrix."""
    rows, sets = table.filter(state="measured"), table["train"].n_unique()
    tested = float(rows.unique("test")["n"].sum())
    hatched = [f"{n} {state} ({_HATCHED[state]})" for state, n in frames.states(table)]
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
        made_on(simulated=simulated, date=date),
    ]


def left_out_caption(rows: pl.DataFrame, picks: Mapping[str, Any], date: str, *, simulated: bool) -> list[str]:
    """Caption of the bars under the matrix."""
    kept = split(rows["split_by"][0])
    return [
        f"{picks['metric']} on {rows.height} data sets, {count(float(rows['n'].sum()))} cells, each tested by "
        f"{picks['entry']} trained on the others",
        f"split by {kept}: nothing of the tested {kept} trains",
        f"bar: from the constant classifier (tick) to the score; line: {INTERVAL}",
        made_on(simulated=simulated, date=date),
    ]


def pair(row: Mapping[str, Any], picks: Mapping[str, Any]) -> str:
    """Say how a pair came out against its constant."""
    verdict = {
        "better": "the model is clearly better",
        "worse": "the model is clearly worse",
        "": "the two cannot be told apart",
    }[against_constant(row["better"], row["crosses"])]
    return (
        f"**{picks['entry']}**, trained on *{row['train']}*, scores {picks['metric']} "
        f"**{score(row['value'], row['ci_low'], row['ci_high'])}** on *{row['test']}*. A classifier that looks at "
        f"nothing scores {number(row['constant'])}: {verdict}."
    )


def pair_caption(
    row: Mapping[str, Any], picks: Mapping[str, Any], part: FoldScores, date: str, *, simulated: bool
) -> list[str]:
    """Caption of a pair."""
    return [
        f"{count(part.n)} cells of {row['test']}",
        f"cross-data, split by {split(picks['split_by'])}, {picks['shots']} shots",
        f"95 % bootstrap interval over {count(part.n_units)} {part.unit}s" if part.unit else "no interval was drawn",
        f"figures and table: one of {row['seeds']} seeds; the sentence: their mean" if row["seeds"] > 1 else "",
        made_on(simulated=simulated, date=date),
    ]
