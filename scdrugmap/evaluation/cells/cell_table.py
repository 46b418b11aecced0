"""What an evaluation knows of its cells beside their expression: label, groups and content. Expression stays away."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.data.dedupe import cell_keys, duplicate_ids
from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.errors import LabelsMissing

if TYPE_CHECKING:
    from anndata import AnnData

UNIT_WORDS = {
    "sample": "sample",
    "patient_or_line": "patient or line",
    "dataset": "data set",
    "study": "study",
}


@dataclass(frozen=True, eq=False)
class CellMetadata:
    """Labelled cells, one row each, in the order of their embeddings. Every column is (n_cells,)."""

    name: np.ndarray  # str, the barcode as the file has it
    dataset: np.ndarray  # str
    study: np.ndarray  # str
    sample: np.ndarray  # str, unique over studies
    patient_or_line: np.ndarray  # str, unique over studies
    label: np.ndarray  # object, "sensitive" or "resistant"
    content: np.ndarray  # int, the same for copies of one cell

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray) -> CellMetadata:
        """Return the rows of an index array or mask."""
        return CellMetadata(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def units(self, split_by: str) -> np.ndarray:
        """Return the unit of each cell that a split may not divide, (n_cells,) str."""
        return np.asarray(getattr(self, split_by))

    def n_samples(self) -> int:
        """Count the samples."""
        return len(np.unique(self.sample))


def tabulate(adatas: Sequence[AnnData], hashes: Sequence[np.ndarray]) -> CellMetadata:
    """Return the table of cells that all have a label; `hashes` holds each AnnData's cell hashes.

    obs needs `response`, `dataset`, `study`, `sample` and `patient_or_line` (as `load_dataset` gives them).
    """
    columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(CellMetadata) if field.name != "content"}
    for adata in adatas:
        columns["name"].append(np.asarray(adata.obs_names, dtype=str))
        columns["label"].append(np.asarray(adata.obs["response"], dtype=object))
        for column in ("dataset", "study", "sample", "patient_or_line"):
            columns[column].append(np.asarray(adata.obs[column].astype(str), dtype=str))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    for column in ("sample", "patient_or_line"):
        joined[column] = _unique_over(joined[column], joined["study"])
    keys = [cell_keys(adata, known) for adata, known in zip(adatas, hashes, strict=True)]
    return CellMetadata(**joined, content=duplicate_ids(keys))


def _unique_over(names: np.ndarray, studies: np.ndarray) -> np.ndarray:
    """Prefix the study where two studies use one name: 'P1' of one is not 'P1' of the other."""
    used = Counter(name for name, _ in set(zip(names.tolist(), studies.tolist(), strict=True)))
    return np.array(
        [f"{study}:{name}" if used[name] > 1 else name for name, study in zip(names, studies, strict=True)], dtype=str
    )


def content_of(adata: AnnData, fingerprint: str) -> str:
    """Return a hash of what an experiment uses of a data set: the cells' expression, names, labels and groups."""
    digest = hashlib.sha256(fingerprint.encode())
    for column in ("response", "dataset", "study", "sample", "patient_or_line"):
        digest.update("\n".join(adata.obs[column].astype(str)).encode() + b"\0")
    digest.update("\n".join(map(str, adata.obs_names)).encode())
    return "sha256:" + digest.hexdigest()


def require_both_classes(table: CellMetadata) -> None:
    """Raise `LabelsMissing` where there is nothing to tell apart."""
    names = ", ".join(f"'{name}'" for name in np.unique(table.dataset)) or "The data"
    for label in (SENSITIVE, RESISTANT):
        if not (table.label == label).any():
            message = f"{names}: one class only ({len(table)} cells, none {label}), so nothing can be told apart."
            raise LabelsMissing(message, f"Add a data set that has {label} cells, or use protocol='cross-data'.")
