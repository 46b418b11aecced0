"""The verdicts of an audit: one plain sentence for each thing that a reader of a score must know."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from scdrugmap.data.catalog.card import DatasetCard
from scdrugmap.evaluation.cells.cell_table import UNIT_WORDS

Level = Literal["problem", "caution", "good", "unknown"]
ORDER: tuple[Level, ...] = ("problem", "caution", "unknown", "good")
MANY_BARCODES = 0.1  # share of the smaller set's cells above which shared barcodes are more than chance
FEW_UNITS = 5  # of a class: below it, an interval over them says little
_FEW_CELLS = 50
CHANCE = 0.6  # AUROC of recognising a unit up to which labels are taken not to go with it


@dataclass(frozen=True)
class Finding:
    """One verdict. "problem": a score would mislead; "caution": know it; "unknown": not checked; "good": checked."""

    level: Level
    kind: str  # "shared cells", "shared units", "label", "classes", "copies", "card"
    group: str  # the data set, or the facet and its value
    datasets: tuple[str, ...]
    said: str


def find(
    datasets: pl.DataFrame,
    shared: pl.DataFrame,
    confounding: pl.DataFrame,
    splits: pl.DataFrame,
    cards: Sequence[DatasetCard],
) -> list[Finding]:
    """Return the findings, gravest first; tables are those of `audit.Audit`."""
    findings = [*_classes(datasets), *_shared(shared), *_labels(confounding, splits), *_cards(cards, datasets)]
    checked = datasets.filter(source="cells")["dataset"].to_list()
    if len(checked) > 1 and not any(finding.kind == "shared cells" for finding in findings):
        text = f"No cell stands in two of the {len(checked)} data sets, by content."
        findings.append(Finding("good", "shared cells", "all", tuple(checked), text))
    return sorted(findings, key=lambda finding: ORDER.index(finding.level))


def _classes(datasets: pl.DataFrame) -> Iterator[Finding]:
    for row in datasets.filter(source="cells").iter_rows(named=True):
        name = row["dataset"]
        cells = {label: row[label] for label in ("sensitive", "resistant")}
        absent = [label for label, n in cells.items() if not n]
        if len(absent) == 2:
            text = f"{name} has no labelled cell: it can be predicted, but neither train nor be scored."
        elif absent:
            have = f"{row['sensitive'] + row['resistant']:,}"
            text = f"{name} has no {absent[0]} cell among {have}: others can be tested on it, without an AUROC."
        elif min(cells.values()) < _FEW_CELLS:
            few = " and ".join(f"{n} {label}" for label, n in cells.items() if n < _FEW_CELLS)
            text = f"{name} has {few} cells only: its scores hang on a handful."
        else:
            continue
        yield Finding("caution", "classes", name, (name,), text)


def _shared(shared: pl.DataFrame) -> Iterator[Finding]:
    """Yield what data sets have in common: one finding for all that hang together, not one for each pair."""
    for row in shared.filter(pl.col("a") == pl.col("b")).iter_rows(named=True):
        contrary = f"; {row['contrary']:,} of them carry both labels and are left out" if row["contrary"] else ""
        text = f"{row['a']} holds {_counted(row['cells'], 'copy')} of its own cells; each counts once{contrary}."
        yield Finding("caution", "copies", row["a"], (row["a"],), text)
    pairs = shared.filter(pl.col("a") != pl.col("b"))
    for names, rows in _together(pairs.filter(pl.col("cells") > 0)):
        yield Finding("problem", "shared cells", " + ".join(names), names, _copies(names, rows))
    for names, rows in _together(pairs.filter((pl.col("samples") > 0) | (pl.col("patients_or_lines") > 0))):
        units = {"sample": rows["samples"], "patient or line": rows["patients_or_lines"]}
        have = " and ".join(_ranged(n, word) for word, n in units.items() if n.max())
        text = f"{_listed(names)} share {have}: to leave one of them out is not to leave these out. Split by study."
        yield Finding("caution", "shared units", " + ".join(names), names, text)
    for names, rows in _together(pairs.filter(pl.col("same_barcodes") > MANY_BARCODES * pl.col("smaller"))):
        text = (
            f"{_listed(names)}, of one study, share {_ranged(rows['same_barcodes'], 'barcode')} on cells whose values "
            "differ: they may be the same cells, processed otherwise, which no check of content finds. Split by study."
        )
        yield Finding("caution", "shared cells", " + ".join(names), names, text)


def _together(pairs: pl.DataFrame) -> Iterator[tuple[tuple[str, ...], pl.DataFrame]]:
    """Yield the data sets that hang together by pairs, sorted, and their pairs."""
    groups: list[set[str]] = []
    for pair in map(set, pairs.select("a", "b").iter_rows()):
        touched = [group for group in groups if group & pair]
        groups = [group for group in groups if not group & pair] + [pair.union(*touched)]
    for group in sorted(map(sorted, groups)):
        yield tuple(group), pairs.filter(pl.col("a").is_in(group))


def _copies(names: tuple[str, ...], rows: pl.DataFrame) -> str:
    share = max(cells / smaller for cells, smaller in rows.select("cells", "smaller").iter_rows())
    of = "the smaller set" if rows.height == 1 else "a smaller set at most"
    text = f"{_listed(names)} share {_ranged(rows['cells'], 'cell')} ({share:.0%} of {of})"
    if contrary := rows["contrary"].sum():
        text += f", {contrary:,} of them under contrary labels, which are left out where the sets are pooled"
    return f"{text}. A run here keeps copies on one side; other code would train on what it tests."


def _labels(confounding: pl.DataFrame, splits: pl.DataFrame) -> Iterator[Finding]:
    for (name,), rows in confounding.group_by("group", maintain_order=True):
        group = str(name)
        impossible = splits.filter(group=group, protocol="pooled", possible=False)
        reasons = dict(impossible.select("split_by", "reason").iter_rows())
        counted: set[tuple[int, ...]] = set()
        for row in rows.iter_rows(named=True):
            what = (row["units"], row["units_sensitive"], row["units_resistant"])
            if what not in counted:  # a sample a patient: said once
                counted.add(what)
                level, text = _label(row, reasons)
                yield Finding(level, "label", group, (group,), f"{group}: {text}")


def _label(row: dict[str, Any], reasons: dict[str, str]) -> tuple[Level, str]:
    """Return the verdict on one kind of unit in one group; `reasons` tells why a split by a unit is not possible."""
    word, units = UNIT_WORDS[row["unit"]], _plural(UNIT_WORDS[row["unit"]])
    s, r, mixed = row["units_sensitive"], row["units_resistant"], row["units_mixed"]
    if not mixed and 1 in (s, r):
        sides = {"sensitive": s, "resistant": r}
        alone = " and ".join(f"all {label} cells are of one {word}" for label, n in sides.items() if n == 1)
        text = f"label = {word}: {alone}. A split by cell tells {units} apart, and a split by {word} cannot be made."
        return "problem", text
    if not mixed:
        few = f", but with {min(s, r)} of a class its interval says little" if min(s, r) < FEW_UNITS else ""
        text = f"each of {row['units']} {units} has one label ({s} sensitive, {r} resistant): a split by cell rewards "
        return "caution", f"{text}recognising {units}. A split by {word} is fair{few}."
    if row["unit"] in reasons:
        return "caution", f"it cannot be split by {word}. {reasons[row['unit']]}"
    if row["auroc"] > CHANCE:
        text = f"of {row['units']} {units} {mixed} hold both classes, yet recognising the {word} alone gives AUROC "
        return "caution", f"{text}{row['auroc']:.2f} where it is not held out."
    return "good", f"labels do not go with the {word}: recognising it gives AUROC {row['auroc']:.2f}."


def _cards(cards: Sequence[DatasetCard], datasets: pl.DataFrame) -> Iterator[Finding]:
    names = {card.key for card in cards}
    for (study,), rows in datasets.group_by("study", maintain_order=True):
        keys = tuple(rows["dataset"].to_list())
        if len(keys) > 1 and names & set(keys):
            text = f"{', '.join(keys)} are of one study ({study}): they may share patients and cells. Split by study."
            yield Finding("caution", "card", str(study), keys, text)
    for _, arms in itertools.groupby(sorted(cards, key=_arms), key=_arms):
        group = list(arms)
        if group[0].shares_controls_with:
            n = group[0].shared_sensitive_cells
            count = "their" if n is None else f"{n:,}"
            keys = _arms(group[0])
            text = f"{', '.join(keys)} share {count} sensitive cells by their cards; not checked."
            yield Finding("problem", "card", group[0].study, keys, text)
    for card in cards:
        if card.confounded:
            text = f"{card.key}, by its card: {card.warnings[0]}"
            yield Finding("problem" if "sample" in card.confounded else "caution", "card", card.key, (card.key,), text)
    if cards:
        keys = tuple(sorted(names))
        have = "its cells are" if len(keys) == 1 else "their cells are"
        text = f"{', '.join(keys)}: {have} not on this machine, so that nothing was checked."
        yield Finding("unknown", "card", "all", keys, text)


def _arms(card: DatasetCard) -> tuple[str, ...]:
    return tuple(sorted((card.key, *card.shares_controls_with))) if card.shares_controls_with else ()


def _ranged(counts: pl.Series, word: str) -> str:
    """Return "3 cells", or "2 to 5 cells a pair" where pairs differ, "3 cells a pair" where several agree."""
    low, high = int(counts.min()), int(counts.max())  # type: ignore[arg-type]
    text = _counted(high, word) if low == high else f"{low:,} to {_counted(high, word)}"
    return f"{text} a pair" if len(counts) > 1 else text


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _counted(n: int, word: str) -> str:
    return f"{n:,} {word if n == 1 else _plural(word)}"


def _plural(word: str) -> str:
    return {"patient or line": "patients or lines", "study": "studies", "copy": "copies"}.get(word, f"{word}s")
