"""Fit a reference head on labelled collections, and measure it on studies that it did not see.

Order of work: drop unlabelled cells and duplicates, embed, hold out every study in turn (fit on the others, score it),
calibrate on those out-of-fold scores, measure, and only then fit the head that is kept, on all of it. Every fit sees as
many sensitive as resistant cells, shared equally among studies, so that no large one-class study decides.
"""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scdrugmap.data.dedupe import cell_keys
from scdrugmap.data.labels import RESISTANT, SENSITIVE, read_labels
from scdrugmap.embeddings.compute import embed_cells
from scdrugmap.errors import InvalidInput, LabelsMissing
from scdrugmap.evaluation.cells.cell_table import CellMetadata, tabulate
from scdrugmap.evaluation.splits import protocols
from scdrugmap.evaluation.strategies.heads import make_head
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.prediction.reference import held_out as hold_out
from scdrugmap.prediction.reference.calibration import fit_calibration
from scdrugmap.prediction.reference.card import ReferenceCard
from scdrugmap.prediction.reference.novelty import Novelty, fit_novelty
from scdrugmap.prediction.reference.reference import (
    NAME,
    Reference,
    Scores,
    describe_encoder,
    find_reference,
    load_reference,
    references,
    short,
)
from scdrugmap.prediction.reference.sampling import balanced_sample
from scdrugmap.progress import Progress

__all__ = [
    "Reference",
    "ReferenceCard",
    "Scores",
    "find_reference",
    "fit_reference",
    "load_reference",
    "references",
]

_PACKAGES = ("scdrugmap", "torch", "scikit-learn", "numpy", "anndata")
_COLUMNS = ("response", "dataset", "study", "sample", "patient_or_line")
_DESCRIBED = {"drugs": "drug", "cancer_types": "cancer_type", "tissues": "tissue", "time_points": "time_point"}


@dataclass(frozen=True)
class Collection:
    """Labelled, deduplicated cells of all data sets, with their embedding."""

    parts: tuple[AnnData, ...]  # data sets in the order given, cells as kept
    table: CellMetadata  # of the kept cells
    obs: pd.DataFrame  # response, dataset, study, sample, patient_or_line of every kept cell, (n_cells, 5)
    embedding: NDArray[np.float32]  # (n_cells, D)
    hashes: NDArray[np.bytes_]  # of the content of those cells that it tells apart, (at most n_cells,)
    n_duplicates: int  # copies that were left out, and cells whose copies carry both labels

    @property
    def resistant(self) -> NDArray[np.bool_]:
        """Which cells are resistant, (n_cells,)."""
        return (self.obs["response"] == RESISTANT).to_numpy()


def fit_reference(
    collections: Sequence[AnnData],
    encoder: Encoder,
    *,
    name: str = "mine",
    head: str = "logistic",
    seed: int = 0,
    label_basis: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    summary: str = "",
    cache: Path | None = None,
    progress: Progress = False,
) -> Reference:
    """Fit head, calibration and novelty on labelled data sets.

    Args:
        collections: AnnData as `load_dataset` returns them (`response`, `dataset`, `study`, `sample` in obs).
        encoder: what embeds the cells; the reference will only accept the same weights, recipe and settings.
        name: what the reference is called.
        head: "logistic" or "mlp".
        seed: of head, choices of cells and stored cells.
        label_basis: what the labels of a data set rest on, by data set name, for the card.
        notes: further sentences for the card.
        summary: one sentence for the card; made from the data sets when empty.
        cache: folder of the embedding store, or None.
        progress: as in `embed_cells`, for each data set.

    Raises:
        InvalidInput: an impossible name, or too few cells.
        LabelsMissing: no labels, or one class only.

    """
    if not NAME.fullmatch(name):
        raise InvalidInput(f"A reference cannot be called '{name}'.", "Use letters, digits, dots and dashes.")
    cells = _gather(collections, encoder, cache, progress)
    resistant, studies = cells.resistant, cells.obs["study"].to_numpy(dtype=str)
    folds = hold_out.score_held_out(cells.parts, cells.table, cells.embedding, encoder, head, seed)
    calibration, report = fit_calibration(*(part[folds.scored] for part in (folds.raw, resistant, folds.unit_of)))
    held_out = hold_out.measure(folds, report.p_held_out, cells.obs)
    novelty = fit_novelty(cells.embedding, cells.obs["sample"].to_numpy(dtype=str), studies, seed=seed)
    chosen = balanced_sample(resistant, studies, seed=seed)
    final = make_head(head, seed=seed).fit(cells.embedding[chosen], cells.obs["response"].to_numpy()[chosen])
    card = ReferenceCard(
        model=encoder.card.key,
        name=name,
        summary=summary or _summary(cells.obs),
        encoder=describe_encoder(encoder),
        head=_head_record(head, resistant[chosen]),
        trained_on=[_row(part, encoder, label_basis or {}) for part in cells.parts],
        n_duplicates=cells.n_duplicates,
        held_out=held_out,
        calibration=report.record(),
        novelty=_novelty_record(novelty),
        notes=[*notes, *_notes(held_out, encoder, cells.obs)],
        versions={package: importlib.metadata.version(package) for package in _PACKAGES},
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seed=seed,
    )
    return Reference(card, final, calibration, novelty, np.sort(short(cells.hashes)))


def _head_record(name: str, resistant: NDArray[np.bool_]) -> dict[str, Any]:
    """What the card says about the head: `resistant`, (n training cells,), tells the classes that it saw."""
    return {"name": name, "n_sensitive": int((~resistant).sum()), "n_resistant": int(resistant.sum())}


def _novelty_record(novelty: Novelty) -> dict[str, Any]:
    return {
        "threshold": novelty.threshold,
        "neighbours": novelty.neighbours,
        "points": len(novelty.points),
        "meaning": "share of reference cells that were nearer when their own sample was held out",
    }


def _gather(collections: Sequence[AnnData], encoder: Encoder, cache: Path | None, progress: Progress) -> Collection:
    """Keep labelled cells, each once, and embed them."""
    if not collections:
        raise LabelsMissing("A reference needs at least one labelled data set.", "Name one: --data FILE")
    labelled = [_labelled(adata) for adata in collections]
    keys = [cell_keys(adata) for adata in labelled]
    table = tabulate(labelled, [part.hashes for part in keys])
    kept, copies, contrary = protocols.distinct(table)
    mine = np.isin(np.arange(len(table)), kept)
    sides = np.split(mine, np.cumsum([adata.n_obs for adata in labelled])[:-1])
    parts = [adata[side].copy() for adata, side in zip(labelled, sides, strict=True) if side.any()]
    obs = pd.concat([adata.obs[list(_COLUMNS)].astype(str) for adata in labelled])[mine]
    counts = obs["response"].value_counts()
    if len(counts) < 2:
        raise LabelsMissing(
            f"All {len(obs)} labelled cells are {counts.index[0] if len(counts) else 'missing'}.",
            "Add a data set that holds the other class.",
        )
    embedding = np.concatenate(
        [np.asarray(embed_cells(part, encoder, cache=cache, progress=progress)) for part in parts]
    )
    hashes = np.concatenate([part.hashes for part in keys])[mine & np.concatenate([part.identifiable for part in keys])]
    obs = obs.reset_index(drop=True)
    return Collection(tuple(parts), table.take(kept), obs, embedding, hashes, copies + contrary)


def _labelled(adata: AnnData) -> AnnData:
    missing = [column for column in _COLUMNS if column not in adata.obs]
    if missing:
        raise LabelsMissing(f"The data set lacks the obs columns {', '.join(missing)}.", "Load it with load_dataset.")
    if value_type(adata) == "zscore":
        raise InvalidInput(
            f"'{adata.obs['dataset'].iloc[0]}' holds z-scores, which only compare cells of that data set.",
            "Use counts or log-normalised values.",
        )
    labels = read_labels(adata.obs["response"].to_numpy())
    has = np.array([label is not None for label in labels], dtype=bool)
    if not has.any():
        raise LabelsMissing(
            f"'{adata.obs['dataset'].iloc[0]}' has no labelled cells.", "Leave it out, or label its cells."
        )
    kept = adata[has].copy()
    kept.obs["response"] = labels[has]
    return kept


def value_type(adata: AnnData) -> str:
    """Return what the values are, as the loader found them; "unknown" for cells that did not come through it."""
    return str(adata.uns.get("scdrugmap", {}).get("input", {}).get("value_type", "unknown"))


def _row(part: AnnData, encoder: Encoder, label_basis: Mapping[str, str]) -> dict[str, Any]:
    """What the card says about one data set."""
    obs = part.obs
    dataset, study = str(obs["dataset"].iloc[0]), str(obs["study"].iloc[0])
    described = {
        key: sorted(obs[column].dropna().astype(str).unique()) for key, column in _DESCRIBED.items() if column in obs
    }
    return {
        "dataset": dataset,
        "study": study,
        "n_sensitive": int((obs["response"] == SENSITIVE).sum()),
        "n_resistant": int((obs["response"] == RESISTANT).sum()),
        "n_samples": int(obs["sample"].nunique()),
        **described,
        "value_type": value_type(part),
        "label_basis": label_basis.get(dataset, "as given in the file"),
        "seen_in_pretraining": study in encoder.card.pretrained_accessions,
    }


def _notes(held_out: Mapping[str, Any], encoder: Encoder, obs: pd.DataFrame) -> list[str]:
    """Say what a reader must know before trusting the score, as far as the cells themselves tell."""
    notes = [
        f"{row['name']}: only {'resistant' if RESISTANT in row['patients_or_lines'] else 'sensitive'} cells."
        for row in held_out["by_unit"]
        if row["n_classes"] == 1
    ]
    notes += [
        f"{row['name']}: a class stands in a single patient or line, so label and line cannot be told apart."
        for row in held_out["by_unit"]
        if row["n_classes"] == 2 and row["confounded"]
    ]
    seen = sorted(set(obs["study"]) & encoder.card.pretrained_accessions)
    if seen and not encoder.card.fitted:
        notes.append(f"The encoder was pretrained on cells of {', '.join(seen)}, without their labels.")
    return notes


def _summary(obs: pd.DataFrame) -> str:
    return f"{len(obs):,} cells of {obs['dataset'].nunique()} data sets from {obs['study'].nunique()} studies."
