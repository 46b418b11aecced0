"""Cells without an answer in a score: they are called wrong, without confidence, and never dropped."""

from __future__ import annotations

import numpy as np

FAILED_SENSITIVE = np.float32(0.5)  # is called resistant
FAILED_RESISTANT = np.nextafter(np.float32(0.5), np.float32(0))  # is called sensitive


def count_failures(p_resistant: np.ndarray, sensitive: np.ndarray) -> np.ndarray:
    """Return P(resistant), (n_cells,) float32, with cells that have no answer (NaN) called wrong, without confidence.

    `sensitive`, (n_cells,) bool, is the truth. A failure must not help a score: at one half for all, failed resistant
    cells would count as right.
    """
    wrong = np.where(sensitive, FAILED_SENSITIVE, FAILED_RESISTANT)
    return np.where(np.isnan(p_resistant), wrong, p_resistant).astype(np.float32)
