"""Which cells train and which test. A split is two index arrays; cells are never changed or added by it.

Splits depend on the cells, the protocol and the seed, never on the model: all models of a comparison share them. The
held-out score of a reference, and the calibration that is measured on it, are split here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from scdrugmap.data import dedupe
from scdrugmap.data.labels import SENSITIVE
from scdrugmap.errors import InvalidInput, LabelsMissing
from scdrugmap.evaluation.cells.cell_table import UNIT_WORDS, CellMetadata, require_both_classes
from scdrugmap.evaluation.splits.few_shot import FewShot, nobody, set_aside

_ATTEMPTS = 20  # seeds tried for folds whose training sides have both classes
VALIDATION_FOLDS = (10, 5, 3)  # the validation part is one of that many parts of the training side


@dataclass(frozen=True, eq=False)
class Split:
    """One fold: rows of the table that train and rows that test. With a `reason` it cannot be scored."""

    name: str
    train: np.ndarray
    test: np.ndarray
    reason: str = ""
    shots: np.ndarray = field(default_factory=nobody)  # rows of the test unit that train; `train` holds them too
    left_out: int = 0  # cells of the training units that do not train: copies of tested cells, or of one another
    notes: tuple[str, ...] = ()


def distinct(table: CellMetadata) -> tuple[np.ndarray, int, int]:
    """Return the rows that are left when each cell counts once, and how many were dropped as copies and as contrary.

    See `data.dedupe.distinct`.
    """
    return dedupe.distinct(table.content, table.label == SENSITIVE)


def splits(
    table: CellMetadata,
    protocol: str,
    split_by: str,
    folds: int,
    seed: int,
    *,
    train: Sequence[str] = (),
    shots: int | None = None,
    reserve: int = 0,
) -> list[Split]:
    """Return the folds of a protocol; raises `LabelsMissing` or `InvalidInput` where it cannot be done honestly.

    `pooled` takes a table of distinct cells. `cross-data` takes all: each unit is tested with all its cells but those
    of its reserve, and what stands in it as well is left out of training. With `train`, these data sets train and each
    other one is a test unit; their training sides are equal, save the shots.
    """
    if protocol == "cross-data":
        if (shots or 0) > reserve:
            message = f"{shots} shots a class cannot be taken from a reserve of {reserve}."
            raise InvalidInput(message, "Set reserve to the largest number of shots of the comparison.")
        _require_whole_units(split_by)
        few = FewShot(shots or 0, reserve, seed)
        if train:
            return list(_transfer(table, split_by, train, few))
        _require_several(table, split_by)
        return list(leave_one_out(table, split_by, few))
    if train or reserve or shots is not None:
        message = "Shots, a reserve and data sets that only train are for cross-data: pooled folds test every cell."
        raise InvalidInput(message, "Use protocol='cross-data', or leave them out.")
    require_both_classes(table)
    part = _pooled_folds(table, split_by, folds, seed)
    return [Split(str(k), np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(part.max() + 1)]


def _pooled_folds(table: CellMetadata, split_by: str, folds: int, seed: int) -> np.ndarray:
    units = None if split_by == "cell" else table.units(split_by)
    if units is None:
        return _require(_folds(table.label, None, folds, seed), split_by)
    per_class = _units_per_class(table, split_by)
    fewest = min(len(members) for members in per_class.values())
    for k in dict.fromkeys((min(folds, len(np.unique(units))), fewest)):
        for attempt in range(_ATTEMPTS):
            part = _folds(table.label, units, k, seed + 1000 * attempt)
            if part is not None:
                return part
    return _require(None, split_by)


def _units_per_class(table: CellMetadata, split_by: str) -> dict[str, np.ndarray]:
    """Return the units of each class; raise where holding one out leaves a class without training cells."""
    units, word = table.units(split_by), UNIT_WORDS[split_by]
    per_class = {label: np.unique(units[table.label == label]) for label in ("sensitive", "resistant")}
    remedy = "Split by cell, knowing what it measures, or add data sets and split by dataset or study."
    if len(np.unique(units)) == 1:
        message = f"All {len(table)} cells are of one {word} ('{units[0]}'): none can be held out."
        raise LabelsMissing(message, remedy)
    alone = {label: members[0] for label, members in per_class.items() if len(members) == 1}
    if alone:
        label, unit = next(iter(alone.items()))
        mixed = set(per_class["sensitive"]) & set(per_class["resistant"])
        confounded = "" if mixed else f"confounded (label = {word}): "
        message = f"{confounded}all {label} cells are of one {word} ('{unit}'); held out, none is left to learn from."
        raise LabelsMissing(message, remedy)
    return per_class


def _folds(labels: np.ndarray, units: np.ndarray | None, k: int, seed: int) -> np.ndarray | None:
    """Return the fold of each cell, (n,) int from 0 without a gap; None where a training side lacks a class."""
    k = min(k, *(int(np.count_nonzero(labels == label)) for label in set(labels)))
    if k < 2:
        return None
    if units is None:
        parts = StratifiedKFold(k, shuffle=True, random_state=seed).split(labels, labels.astype(str))
    else:
        parts = StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(labels, labels.astype(str), units)
    fold = np.empty(len(labels), dtype=int)
    for number, (_, test) in enumerate(parts):
        fold[test] = number
    fold = np.unique(fold, return_inverse=True)[1]
    both = all(len(set(labels[fold != number])) == 2 for number in range(fold.max() + 1))
    return fold if both and fold.max() > 0 else None


def _require(part: np.ndarray | None, split_by: str) -> np.ndarray:
    if part is None:
        message = f"The cells cannot be split by {split_by} so that both classes are left to learn from."
        raise LabelsMissing(message, "At least two cells and two units of each class are needed; add data sets.")
    return part


def held_out_units(units: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each unit, of (n_cells,) str, by name: its name, the places of the cells of all others, and of its own."""
    for name in np.unique(units):
        yield str(name), np.flatnonzero(units != name), np.flatnonzero(units == name)


def leave_one_out(table: CellMetadata, split_by: str, few: FewShot | None = None) -> Iterator[Split]:
    """Hold each unit out once: it tests with all its cells but those of its reserve, and the others train.

    What it holds is left out of their cells. A split has a `reason` where one class is left to learn from.
    """
    for name, others, held_out in held_out_units(table.units(split_by)):
        test = _rows(table, held_out)
        train = _without(table, others, test)
        yield _split(table, name, train, test, few or FewShot(), len(others) - len(train))


def _transfer(table: CellMetadata, split_by: str, names: Sequence[str], few: FewShot) -> Iterator[Split]:
    """Train on the named data sets, test each other one; a cell of any of these is left out of training.

    Where that would leave one class only (sets of one study often share their untreated cells), each test set has a
    training side of its own, without its own cells.
    """
    known = np.unique(table.dataset).tolist()
    tested = [name for name in known if name not in names]
    if unknown := sorted(set(names) - set(known)):
        message = f"'{unknown[0]}' is to train, but is not among the data sets of the experiment."
        raise InvalidInput(message, f"They are: {', '.join(known)}.")
    if not tested:
        message = f"All {len(known)} data sets train, so that none is left to test."
        raise InvalidInput(message, "Add the data sets to be tested.")
    side = np.flatnonzero(np.isin(table.dataset, names))
    refused = dict.fromkeys(tested, "")
    if split_by == "study":
        refused = {name: _same_study(table, side, np.flatnonzero(table.dataset == name)) for name in tested}
    scored = np.isin(table.dataset, [name for name in tested if not refused[name]])
    shared = _without(table, side, np.flatnonzero(scored))
    for name in tested:
        test = _rows(table, np.flatnonzero(table.dataset == name))
        train = shared if len(set(table.label[shared])) == 2 else _without(table, side, test)
        yield _split(table, name, train, test, few, len(side) - len(train), refused[name])


def _without(table: CellMetadata, side: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return the rows of a training side, each cell once, less what stands among the tested rows as well."""
    return _rows(table, side[~np.isin(table.content[side], table.content[tested])])


def _split(
    table: CellMetadata, name: str, train: np.ndarray, target: np.ndarray, few: FewShot, left_out: int, reason: str = ""
) -> Split:
    """Set the target's reserve aside and let its shots train."""
    aside = set_aside(table.take(target), name, few)
    shots, test = target[aside.shots], target[aside.test]
    side = np.union1d(train, shots) if len(shots) else train
    labels = set(table.label[side])
    lacking = "" if len(labels) == 2 else f"The data sets that train have {' and '.join(labels) or 'no'} cells only."
    same = _same_study(table, train, target)
    notes = (f"same study: {same[0].lower()}{same[1:-1]}",) if same else ()
    reason = reason or aside.reason or lacking or ("" if len(test) else f"'{name}' has no cell that could be tested.")
    return Split(name, side, test, reason, shots, left_out, (*notes, *aside.notes))


def _same_study(table: CellMetadata, train: np.ndarray, test: np.ndarray) -> str:
    """Say which study stands on both sides, "" where none does."""
    shared = set(table.study[train].tolist()) & set(table.study[test].tolist())
    if not shared:
        return ""
    return f"Cells of study {min(shared)} train, and '{table.dataset[test[0]]}' is of the same study."


def _require_whole_units(split_by: str) -> None:
    if split_by not in ("dataset", "study"):
        message = f"The protocol cross-data cannot be split by {split_by}: it leaves out whole data sets or studies."
        raise InvalidInput(message, "Use split_by='dataset' or 'study', or protocol='pooled'.")


def _require_several(table: CellMetadata, split_by: str) -> None:
    names = np.unique(table.units(split_by))
    if len(names) < 2:
        message = f"There is one {UNIT_WORDS[split_by]} only ('{names[0]}'), so none can be left out."
        raise InvalidInput(message, "Add data sets of other studies, or use protocol='pooled'.")


def _rows(table: CellMetadata, rows: np.ndarray) -> np.ndarray:
    return rows[dedupe.distinct(table.content[rows], table.label[rows] == SENSITIVE)[0]]


def validation_rows(table: CellMetadata, split_by: str, seed: int) -> tuple[np.ndarray | None, str]:
    """Return the cells of a training side that choose the epoch, (n,) bool, and the unit that keeps them apart.

    Grouped as the split is, so that the choice is made on other units; where the units do not suffice, by sample, then
    by cell; None where there are too few cells. The test side is never looked at.
    """
    for unit in dict.fromkeys((split_by, "sample", "cell")):
        units = None if unit == "cell" else table.units(unit)
        if units is not None and len(np.unique(units)) < 2:
            continue
        for k in VALIDATION_FOLDS:
            part = _folds(table.label, units, k if units is None else min(k, len(np.unique(units))), seed)
            if part is None:
                continue
            for number in range(part.max() + 1):
                chosen = np.asarray(part == number)
                if len(set(table.label[chosen])) == 2:
                    return chosen, unit
    return None, ""


def warnings(table: CellMetadata, split_by: str) -> list[str]:
    """Return what a reader must know of the labels before the score: confounding, and what stands on both sides."""
    notes = []
    units = ["sample", "patient_or_line"]
    if not _divides(table, "sample", "patient_or_line") and not _divides(table, "patient_or_line", "sample"):
        units = ["sample"]  # a sample a patient: said once
    for unit in units:
        word = UNIT_WORDS[unit]
        labels = {name: set(table.label[table.units(unit) == name]) for name in np.unique(table.units(unit))}
        if any(len(label) > 1 for label in labels.values()):
            continue
        alone = [name for name in ("sensitive", "resistant") if sum(name in label for label in labels.values()) == 1]
        if alone:
            classes = " and ".join(f"all {name} cells are of one {word}" for name in alone)
            notes.append(f"confounded (label = {word}): {classes}")
        if split_by == "cell" or (split_by != unit and _divides(table, split_by, unit)):
            notes.append(f"leaks: every {word} has one label, and a split by {split_by} puts its cells on both sides")
    return notes


def _divides(table: CellMetadata, split_by: str, unit: str) -> bool:
    """Tell whether some unit stands in more than one unit of the split."""
    pairs = set(zip(table.units(split_by).tolist(), table.units(unit).tolist(), strict=True))
    return len(pairs) > len(np.unique(table.units(unit)))
