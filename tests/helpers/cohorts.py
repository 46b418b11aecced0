"""Tables of labelled cells without expression: written out, or drawn by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from scdrugmap.evaluation.cells.cell_table import CellMetadata

SAFE = ("sample", "patient_or_line", "dataset", "study")


def table(label, *, sample=None, patient=None, dataset=None, study=None, content=None):
    n = len(label)

    def column(values, default):
        return np.array([default] * n if values is None else list(values), dtype=str)

    words = {"s": "sensitive", "r": "resistant"}
    sample = column(sample, "sample")
    return CellMetadata(
        name=np.array([f"cell-{i}" for i in range(n)]),
        dataset=column(dataset, "set"),
        study=column(study, "study"),
        sample=sample,
        patient_or_line=sample if patient is None else column(patient, ""),
        label=np.array([words[letter] for letter in label], dtype=object),
        content=column(content if content is not None else range(n), ""),
    )


@st.composite
def cohorts(draw):
    """Cells of up to 3 studies with up to 4 samples each, some of them copies, labelled by cell."""
    n = draw(st.integers(8, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    study = rng.integers(0, draw(st.integers(1, 3)), n)
    dataset = study * 2 + rng.integers(0, 2, n)
    sample = dataset * 4 + rng.integers(0, draw(st.integers(1, 4)), n)
    content = rng.integers(0, draw(st.integers(n // 2, 4 * n)), n)
    label = np.where(rng.random(content.max() + 1) < 0.5, "s", "r")[content]
    flipped = rng.random(n) < draw(st.sampled_from([0.0, 0.1]))
    label = np.where(flipped, np.where(label == "s", "r", "s"), label)
    return table(label, sample=sample, dataset=dataset, study=study, content=content)
