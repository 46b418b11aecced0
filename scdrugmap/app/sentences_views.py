"""Sentences and captions of the transfer page and of the models page's tabs, made of the numbers they stand beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from scdrugmap.app import boards_transfer
from scdrugmap.app.sentences import score
from scdrugmap.app.words import count, number

HATCHED = {
    "confounded": "label and sample are one and the same there",
    "one class": "the cells tested, or those trained on, are of one class",
    "failed": "the run could not be done; the tooltip says why",
    "not run": "nobody has run it yet",
}
INTERVAL = "95 % bootstrap interval, over samples where there are several, else over cells"


def transfer(table: pl.DataFrame, picks: Mapping[str, Any]) -> str:
    """Say in one sentence what the matrix shows, and how many pairs are better than their constant."""
    rows = table.filter(state="measured")
    above = rows.filter((pl.col("better") > 0) & ~pl.col("crosses").fill_null(True)).height
    below = rows.filter((pl.col("better") < 0) & ~pl.col("crosses").fill_null(True)).height
    shots = f" after {picks['shots']} labelled target cells a class" if picks["shots"] != "0" else ", zero-shot"
    text = (
        f"You are looking at **{picks['metric']}** of **{picks['entry']}** ({picks['strategy']}{shots}), trained on "
        "one data set and tested on another. "
        f"Of **{rows.height}** measured pairs, **{above}** clear the constant classifier of the tested data set, "
        f"**{below}** fall below it, and {rows.height - above - below} cannot be told from it."
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
        f"split by {picks['split_by'].replace('_', ' ')}: cells that stand in a tested data set never train",
        "colour: distance to the constant classifier of the column" if not picks["other"] else "colour: difference",
        f"dot: the {INTERVAL} holds the constant" if not picks["other"] else f"dot: the two {INTERVAL}s overlap",
        f"means of {seeds} seeds" if seeds > 1 else "",
        "; ".join(hatched),
        f"measured here{f' on {date}' if date else ''}",
    ]


def left_out_caption(rows: pl.DataFrame, picks: Mapping[str, Any], date: str) -> list[str]:
    """Caption of the bars under the matrix."""
    split = rows["split_by"][0]
    return [
        f"{picks['metric']} on {rows.height} data sets, {count(float(rows['n'].sum()))} cells, each tested by "
        f"{picks['entry']} trained on the others",
        f"split by {split}: nothing of the tested {split} trains",
        f"bar: from the constant classifier (tick) to the score; line: {INTERVAL}",
        f"measured here{f' on {date}' if date else ''}",
    ]


def pair(row: Mapping[str, Any], picks: Mapping[str, Any]) -> str:
    """Say how a pair came out against its constant."""
    told = (
        "which cannot be told from it"
        if row["crosses"]
        else "clearly better" if (row["better"] or 0) > 0 else "clearly worse"
    )  # fmt: skip
    return (
        f"**{picks['entry']}**, trained on *{row['train']}*, scores {picks['metric']} "
        f"**{score(row['value'], row['ci_low'], row['ci_high'])}** on *{row['test']}*. A classifier that looks at "
        f"nothing scores {number(row['constant'])}: {told}."
    )


def pair_caption(row: Mapping[str, Any], picks: Mapping[str, Any], date: str) -> list[str]:
    """Caption of a pair."""
    return [
        f"{count(row['n'])} cells of {row['test']}",
        f"cross-data, split by {picks['split_by']}, {picks['shots']} shots",
        INTERVAL,
        f"figures: the first of {row['seeds']} seeds" if row["seeds"] > 1 else "",
        f"measured here on {date}",
    ]
