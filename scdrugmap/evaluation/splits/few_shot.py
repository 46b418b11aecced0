"""Labelled cells of the target that may train: what is set aside of a test unit, and the first k cells a class of it.

What is set aside depends on the target's cells, the reserve and the seed, never on k, on the model or on the other
data sets: a few-shot curve is tested on the same cells at every k, and the shots of a smaller k are among those of a
larger one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.evaluation.cells.cell_table import CellMetadata

CLASSES = (SENSITIVE, RESISTANT)
_ATTEMPTS = 50  # orders of the samples tried for whole samples that hold the reserve


def nobody() -> np.ndarray:
    """Return no rows."""
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class FewShot:
    """`k` labelled target cells a class train, of `reserve` that are set aside with `seed`."""

    k: int = 0
    reserve: int = 0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class SupportSplit:
    """Positions in the target's table: cells that stay to be tested, and shots. With a `reason`, k cannot be had."""

    test: np.ndarray
    shots: np.ndarray = field(default_factory=nobody)
    notes: tuple[str, ...] = ()
    reason: str = ""


def set_aside(target: CellMetadata, name: str, few: FewShot) -> SupportSplit:
    """Set `few.reserve` cells a class of a target apart, at most half of a class, and take the shots from them.

    Whole samples are set aside, so that no shot shares a sample with a tested cell, where each class has two samples
    and some can be spared; their cells beyond the shots neither train nor test. Elsewhere cells are drawn, and the
    notes say that shots and tested cells share samples. `target` holds distinct cells; `name` is part of the seed.
    """
    if not few.reserve:
        return SupportSplit(np.arange(len(target)))
    rng = np.random.default_rng([few.seed, zlib.crc32(name.encode())])
    order = rng.permutation(len(target))
    places = {label: order[target.label[order] == label] for label in CLASSES}
    most = {label: len(places[label]) // 2 for label in CLASSES}
    wanted = {label: min(few.reserve, most[label]) for label in CLASSES}
    spared = _spared_samples(target, wanted, most, rng)
    if spared is None:
        places = {label: places[label][: wanted[label]] for label in CLASSES}
        gone = np.concatenate(list(places.values()))
    else:
        places = {label: places[label][np.isin(target.sample[places[label]], spared)] for label in CLASSES}
        gone = np.flatnonzero(np.isin(target.sample, spared))
    test = np.setdiff1d(np.arange(len(target)), gone)
    short = [label for label in CLASSES if len(places[label]) < max(few.k, 1)]  # without one, at no k: a curve is whole
    if short:
        return SupportSplit(
            test, reason=_short(name, few.k, short[0], len(places[short[0]]), target, spared is not None)
        )
    shots = np.sort(np.concatenate([places[label][: few.k] for label in CLASSES]))
    return SupportSplit(test, shots, tuple(_notes(target, name, test, shots, spared)))


def _spared_samples(
    target: CellMetadata, wanted: Mapping[str, int], most: Mapping[str, int], rng: np.random.Generator
) -> np.ndarray | None:
    """Return samples that hold the wanted cells of each class, or as many as can be had; None where some has none."""
    names, unit = np.unique(target.sample, return_inverse=True)
    counts = np.stack([np.bincount(unit[target.label == label], minlength=len(names)) for label in CLASSES], axis=1)
    if (np.count_nonzero(counts, axis=0) < 2).any():
        return None
    goal, limit = (np.array([of[label] for label in CLASSES]) for of in (wanted, most))
    best, reached = None, 0.0
    for _ in range(_ATTEMPTS):
        chosen, held = [], np.zeros(2, dtype=int)
        for sample in rng.permutation(len(names)):
            useful = (counts[sample][held < goal] > 0).any()
            if useful and (held + counts[sample] <= limit).all():
                chosen.append(sample)
                held = held + counts[sample]
        share = float((np.minimum(held, goal) / goal).min())
        if share > reached:
            best, reached = names[chosen], share
        if reached == 1:
            break
    return best


def _short(name: str, k: int, label: str, n: int, target: CellMetadata, whole: bool) -> str:
    total = int(np.count_nonzero(target.label == label))
    how = "at most half, in whole samples" if whole else "at most half"
    lack = f"{_counted(k, 'shot')} a class cannot be had" if k else "No shot could be had"
    return f"{lack}: {n} of the {_counted(total, f'{label} cell')} of '{name}' can be set aside ({how})."


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}{'s' * (n != 1)}"


def _notes(
    target: CellMetadata, name: str, test: np.ndarray, shots: np.ndarray, spared: np.ndarray | None
) -> list[str]:
    what = _counted(len(target) - len(test), "cell")
    if spared is not None:
        what = f"{_counted(len(spared), 'whole sample')} ({what})"
    notes = [f"set aside for shots: {what} of '{name}'; {_counted(len(test), 'cell')} are tested"]
    for unit, word in (("sample", "samples"), ("patient_or_line", "patients or lines")):
        units = target.units(unit)
        if np.isin(units[shots], units[test]).any():
            notes.append(f"leaks: shots and tested cells of '{name}' share {word}")
            break
    return notes
