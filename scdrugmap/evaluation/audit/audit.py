"""What stands between a data set and an honest score: shared cells, samples and patients, and labels that go with them.

Cells are compared by content (`data.dedupe`), so that copies are found whatever their barcodes. Splits are tried out
with the code that runs them (`protocols.splits`). Of catalogue sets whose cells are not on this machine, the audit
repeats what their cards know, and says that nothing was checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from scdrugmap.data.catalog.card import DatasetCard
from scdrugmap.data.catalog.catalog import CATALOGUE_FACETS, DATASETS
from scdrugmap.data.dedupe import CellKeys, cell_keys, duplicate_ids
from scdrugmap.data.load import load_dataset
from scdrugmap.errors import InvalidInput, ScDrugMapError
from scdrugmap.evaluation.audit import findings as audit_findings
from scdrugmap.evaluation.audit.findings import Finding
from scdrugmap.evaluation.audit.overlap import UNLABELLED, in_common
from scdrugmap.evaluation.cells.cell_table import CellMetadata
from scdrugmap.evaluation.cells.labelled_cells import ACCEPTED_VALUES, FACET_COLUMNS
from scdrugmap.evaluation.splits import protocols
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

_UNITS = ("sample", "patient_or_line", "dataset", "study")
COUNTS = ("sensitive", "resistant", UNLABELLED)
TRIED = (
    ("pooled", "cell"), ("pooled", "sample"), ("pooled", "patient_or_line"), ("pooled", "dataset"), ("pooled", "study"),
    ("cross-data", "dataset"), ("cross-data", "study"),
)  # fmt: skip
ALONE = TRIED[:3]  # what one data set by itself could be split by


@dataclass(frozen=True, eq=False)
class Audit:
    """All that was found; every table is polars, every verdict a sentence."""

    # dataset, study, group (value of the facet), source ("cells" or "card"), values, sensitive, resistant, unlabelled
    # (cells; null where unknown), samples, samples_sensitive, samples_resistant, patients_or_lines
    datasets: pl.DataFrame
    units: pl.DataFrame  # dataset, unit ("sample", "patient_or_line"), name, sensitive, resistant, unlabelled
    shared: pl.DataFrame  # columns of `audit_shared.SHARED`, one row a pair of data sets
    # group, unit, units, units_sensitive, units_resistant, units_mixed, auroc (of recognising the unit, nothing else)
    confounding: pl.DataFrame
    splits: pl.DataFrame  # group, protocol, split_by, possible, folds, reason, warnings
    findings: tuple[Finding, ...]

    def to_record(self) -> dict[str, Any]:
        """Return all of it as plain lists and dictionaries."""
        tables = ("datasets", "units", "shared", "confounding", "splits")
        plain: dict[str, Any] = {name: getattr(self, name).to_dicts() for name in tables}
        return plain | {"findings": [asdict(finding) for finding in self.findings]}


def audit(
    sources: Sequence[str | Path | AnnData], *, facet: str = "all", settings: Settings | None = None, seed: int = 0
) -> Audit:
    """Audit data sets: catalogue keys, files or AnnData, as `load_dataset` takes them; labels may be missing.

    Each data set is looked at by itself, and together with the others that have the same value of `facet`. One file is
    in memory at a time. Raises `UnknownName` for a name that is neither file nor key, `InvalidInput` for a facet that
    there is not, for two data sets of one name, or for a file that cannot be read.
    """
    if facet not in CATALOGUE_FACETS:
        message = f"There is no facet called '{facet}'."
        raise InvalidInput(message, f"Known: {', '.join(CATALOGUE_FACETS)}.")
    settings = settings or Settings.from_env()
    cards = [DATASETS[str(source)] for source in sources if _is_card(source, settings)]
    cells = _cells([source for source in sources if not _is_card(source, settings)], facet, settings)
    datasets = pl.concat([_datasets(cells), _of_cards(cards, facet)])
    shared = in_common(cells)
    groups = _groups(cells, facet)
    confounding = pl.DataFrame([row for name, part in groups.items() for row in _confounding(name, part)], _CONF)
    splits = pl.DataFrame([row for name, part in groups.items() for row in _splits(name, part, seed)], _SPLITS)
    findings = audit_findings.find(datasets, shared, confounding, splits, cards)
    return Audit(datasets, _units(cells), shared, confounding, splits, tuple(findings))


_CELLS = ("name", "dataset", "study", "sample", "patient_or_line")
_CELL_TYPES: dict[str, Any] = dict.fromkeys((*_CELLS, "label", "group", "values"), pl.String) | {"content": pl.Int64}
_DATASETS: dict[str, Any] = dict.fromkeys(("dataset", "study", "group", "source", "values"), pl.String)
_DATASETS |= dict.fromkeys(
    (*COUNTS, "samples", "samples_sensitive", "samples_resistant", "patients_or_lines"), pl.Int64
)
_CONF: dict[str, Any] = dict.fromkeys(("group", "unit"), pl.String)
_CONF |= dict.fromkeys(("units", "units_sensitive", "units_resistant", "units_mixed"), pl.Int64) | {"auroc": pl.Float64}
_SPLITS: dict[str, Any] = dict.fromkeys(("group", "protocol", "split_by"), pl.String)
_SPLITS |= {"possible": pl.Boolean, "folds": pl.Int64, "reason": pl.String, "warnings": pl.List(pl.String)}


def _is_card(source: str | Path | AnnData, settings: Settings) -> bool:
    """Tell whether a source is a catalogue key without cells on this machine."""
    return isinstance(source, str) and source in DATASETS and not (settings.data / f"{source}.h5ad").is_file()


def _cells(sources: Iterable[str | Path | AnnData], facet: str, settings: Settings) -> pl.DataFrame:
    """Return one row a cell: names, label, group, and `content`, a number that copies share."""
    frames, keys = [], list[CellKeys]()
    for source in sources:
        adata = load_dataset(source, settings=settings, accept=ACCEPTED_VALUES)
        frames.append(_frame(adata, facet))
        keys.append(cell_keys(adata))
    names = [name for frame in frames for name in frame["dataset"].unique()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        message = f"Two of the data sets are called '{twice[0]}'."
        raise InvalidInput(message, "Give each its own name in obs['dataset'], or name it once.")
    if not frames:
        return pl.DataFrame(schema=_CELL_TYPES)
    cells = pl.concat(frames).with_columns(content=pl.Series(duplicate_ids(keys)))
    return cells.select(pl.col(name).cast(kind) for name, kind in _CELL_TYPES.items())


def _frame(adata: AnnData, facet: str) -> pl.DataFrame:
    """Return what an audit needs of the cells of one file, without their expression."""
    obs = adata.obs
    response = obs["response"].astype(object)
    columns = {column: obs[column].astype(str).to_numpy(object) for column in _CELLS[1:]}
    columns |= {"name": adata.obs_names.to_numpy(object)}
    columns |= {"label": response.where(response.notna(), UNLABELLED).to_numpy(object)}
    if facet != "all":
        columns |= {"group": obs[FACET_COLUMNS[facet]].astype(str).to_numpy(object)}
    frame = pl.DataFrame(columns) if facet != "all" else pl.DataFrame(columns).with_columns(group=pl.lit("all"))
    values = str(adata.uns.get("scdrugmap", {}).get("input", {}).get("value_type", "counts"))
    return frame.with_columns(values=pl.lit(values))


def _groups(cells: pl.DataFrame, facet: str) -> dict[str, pl.DataFrame]:
    """Return the labelled cells that could be evaluated together: each data set, then those of each facet value.

    Sets of z-scores stand apart, since their values cannot be put together with others.
    """
    labelled = cells.filter(pl.col("label") != UNLABELLED)
    groups = {str(name): part for (name,), part in labelled.group_by("dataset", maintain_order=True)}
    scaled = pl.col("values") == "zscore"
    for (value, is_scaled), part in labelled.group_by("group", scaled.alias("scaled"), maintain_order=True):
        if part["dataset"].n_unique() > 1:
            name = "all data sets" if facet == "all" else f"{facet} {value}"
            groups[f"{name} of z-scores" if is_scaled else name] = part
    return groups


def _counts() -> list[pl.Expr]:
    return [(pl.col("label") == label).sum().alias(label) for label in COUNTS]


def _datasets(cells: pl.DataFrame) -> pl.DataFrame:
    of = {label: pl.col("sample").filter(pl.col("label") == label).n_unique() for label in ("sensitive", "resistant")}
    table = cells.group_by("dataset", maintain_order=True).agg(
        pl.col("study", "group", "values").unique().sort().str.join(" + "),
        *_counts(),
        source=pl.lit("cells"),
        samples=pl.struct("study", "sample").n_unique(),
        samples_sensitive=of["sensitive"],
        samples_resistant=of["resistant"],
        patients_or_lines=pl.struct("study", "patient_or_line").n_unique(),
    )
    return table.select(pl.col(name).cast(kind) for name, kind in _DATASETS.items())


def _of_cards(cards: Sequence[DatasetCard], facet: str) -> pl.DataFrame:
    rows = [
        {
            "dataset": card.key,
            "study": card.study,
            "group": "all" if facet == "all" else str(getattr(card, facet)),
            "source": "card",
            "sensitive": card.cells_sensitive,
            "resistant": card.cells_resistant,
            "samples": card.samples_total,
            "samples_sensitive": card.samples_sensitive,
            "samples_resistant": card.samples_resistant,
        }
        for card in cards
    ]
    return pl.DataFrame([{name: row.get(name) for name in _DATASETS} for row in rows], schema=_DATASETS)


def _units(cells: pl.DataFrame) -> pl.DataFrame:
    kinds = [
        cells.group_by("dataset", name=pl.col(unit), maintain_order=True)
        .agg(*_counts())
        .with_columns(unit=pl.lit(unit))
        for unit in ("sample", "patient_or_line")
    ]
    return pl.concat(kinds).select("dataset", "unit", "name", *COUNTS)


def _confounding(group: str, cells: pl.DataFrame) -> list[dict[str, object]]:
    """Return how labels go with each kind of unit; nothing where all cells are of one class."""
    from sklearn.metrics import roc_auc_score

    if cells["label"].n_unique() < 2:
        return []
    rows: list[dict[str, object]] = []
    for unit in _UNITS:
        of = cells.group_by("study", unit) if unit != "study" else cells.group_by(unit)
        counts = of.agg(*_counts()).select("sensitive", "resistant").to_numpy().astype(np.float64)  # (units, 2)
        if len(counts) < 2 and unit in ("dataset", "study"):
            continue
        share = counts[:, 1] / counts.sum(axis=1)
        ones, zeros = np.ones(len(counts)), np.zeros(len(counts))
        auroc = roc_auc_score(np.r_[zeros, ones], np.r_[share, share], sample_weight=np.r_[counts[:, 0], counts[:, 1]])
        pure = {"units_sensitive": int((share == 0).sum()), "units_resistant": int((share == 1).sum())}
        mixed = len(counts) - sum(pure.values())
        about = {"group": group, "unit": unit, "units": len(counts), "units_mixed": mixed, "auroc": float(auroc)}
        rows.append({name: (about | pure)[name] for name in _CONF})
    return rows


def _splits(group: str, cells: pl.DataFrame, seed: int) -> list[dict[str, object]]:
    """Try every split that is asked of a group; the reason of one that is not possible is what a run would say."""
    alone = cells["dataset"].n_unique() < 2
    rows: list[dict[str, object]] = []
    for protocol, split_by in ALONE if alone else TRIED:
        row: dict[str, object] = {"group": group, "protocol": protocol, "split_by": split_by, "possible": False}
        row |= {"folds": 0, "reason": "", "warnings": []}
        try:
            splits, row["warnings"] = _tried(cells, protocol, split_by, seed)
            scored = [split for split in splits if not split.reason]
            row |= {"possible": bool(scored), "folds": len(scored)}
            row["reason"] = "; ".join(f"{split.name}: {split.reason}" for split in splits if split.reason)
        except ScDrugMapError as error:
            row["reason"] = str(error)
        rows.append(row)
    return rows


def _tried(cells: pl.DataFrame, protocol: str, split_by: str, seed: int) -> tuple[list[protocols.Split], list[str]]:
    columns: dict[str, np.ndarray] = {name: cells[name].to_numpy().astype(str) for name in ("name", "dataset", "study")}
    for unit in ("sample", "patient_or_line"):
        columns[unit] = cells.select(pl.concat_str("study", unit, separator=": ")).to_series().to_numpy().astype(str)
    table = CellMetadata(**columns, label=cells["label"].to_numpy().astype(object), content=cells["content"].to_numpy())
    kept = table.take(protocols.distinct(table)[0])
    splits = protocols.splits(kept if protocol == "pooled" else table, protocol, split_by, 5, seed)
    return splits, protocols.warnings(kept, split_by)
