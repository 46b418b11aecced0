"""Seeded choices of cells in which no study and no class outvotes the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_PER_CLASS = 20_000


def share_equally(groups: NDArray[np.str_], total: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw at most `total` positions so that groups get equal shares; what a small group leaves goes to the others."""
    names, counts = np.unique(groups, return_counts=True)
    left = min(total, len(groups))
    drawn = []
    for rank, position in enumerate(np.argsort(counts, kind="stable")):
        size = min(int(counts[position]), left // (len(names) - rank))
        drawn.append(rng.choice(np.flatnonzero(groups == names[position]), size, replace=False))
        left -= size
    return np.sort(np.concatenate(drawn))


def balanced_sample(
    resistant: NDArray[np.bool_], studies: NDArray[np.str_], *, seed: int, max_per_class: int = MAX_PER_CLASS
) -> NDArray[np.intp]:
    """Draw as many sensitive as resistant cells, each class shared equally among its studies; positions, ascending."""
    per_class = min(int(resistant.sum()), int((~resistant).sum()), max_per_class)
    rng = np.random.default_rng(seed)
    drawn = []
    for value in (False, True):
        of_class = np.flatnonzero(resistant == value)
        drawn.append(of_class[share_equally(studies[of_class], per_class, rng)])
    return np.sort(np.concatenate(drawn))
