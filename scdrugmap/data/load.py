"""Data sets as training and evaluation want them: a catalogue key, a file or an AnnData in, one set of columns out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from scdrugmap.data.catalog.card import DatasetCard
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.data.io.read import ACCEPTED, InputRefused, check_anndata, read_h5ad
from scdrugmap.data.labels import RESPONSES, read_labels
from scdrugmap.errors import InvalidInput
from scdrugmap.settings import Settings

COLUMNS = (
    "response", "dataset", "study", "sample", "patient_or_line", "tissue", "cancer_type", "drug", "drug_type",
    "time_point", "collection",
)  # fmt: skip
# Names that files use, by the column that they mean; the first that a file has is taken.
ALIASES = {
    "study": ("accession", "series"),
    "sample": ("sample_id", "orig.ident"),
    "patient_or_line": ("cell_line_or_patient", "patient", "patient_id", "donor", "donor_id", "cell_line"),
    "time_point": ("timepoint",),
}
_UNKNOWN = "unknown"


def load_dataset(
    source: str | Path | AnnData, *, settings: Settings | None = None, accept: Sequence[str] = ACCEPTED
) -> AnnData:
    """Return a data set with all obs columns of curated data, X as `read_h5ad` gives it.

    `source` is a catalogue key (its cells in the cache's data folder), a path, or an AnnData, which is not changed; one
    that `read_h5ad` or `simulate` made is taken as checked. obs gets `response` (categorical: "sensitive", "resistant"
    or missing) and, as text, the other columns of `COLUMNS`. Columns that files call otherwise (`ALIASES`) are renamed.
    What is missing is filled: `dataset` by the key or the file's stem, `study` by the accession on the card or else by
    the data set, `sample` by the data set, `patient_or_line` by the sample, others by the card or "unknown".

    Raises
    ------
    InvalidInput
        The cells are not on this machine, the file cannot be used, its values are of a kind that `accept` (see
        `read_h5ad`) leaves out, or its labels are in no spelling that can be read.
    UnknownName
        A name that is neither a file nor a key of the catalogue.
    """
    card: DatasetCard | None = None
    if isinstance(source, AnnData):
        adata, name = _checked(source, tuple(accept)), "AnnData"
    else:
        path, card = _find(source, settings or Settings.from_env())
        adata, name = read_h5ad(path, accept=accept), card.key if card else _stem(path)
    adata.obs = _columns(adata.obs, name, card)
    return adata


def _find(source: str | Path, settings: Settings) -> tuple[Path, DatasetCard | None]:
    """Return the file of a key or path, and the card of a key."""
    path = Path(source)
    if isinstance(source, Path) or (source not in DATASETS and (path.exists() or path.suffix or len(path.parts) > 1)):
        return path, None
    card = DATASETS[source]
    path = settings.data / f"{source}.h5ad"
    if not path.is_file():
        message = f"The cells of data set '{source}' are not on this machine."
        remedy = f"Save them as {path} (docs/adding-a-dataset.md, part 4; scdrugmap data show {source})."
        raise InvalidInput(message, remedy)
    return path, card


def _stem(path: Path) -> str:
    """Name of a file without its endings: "a.csv.gz" is "a", "v1.2.h5ad" is "v1.2"."""
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if path.is_file() and "." in name else name


def _checked(adata: AnnData, accept: tuple[str, ...]) -> AnnData:
    """Return a new AnnData over the same matrix where its values were checked before, else check them now."""
    marks = adata.uns.get("scdrugmap", {})
    if "input" not in marks and not marks.get("simulated", False):
        return check_anndata(adata, accept=accept)
    kind = str(marks.get("input", {}).get("value_type", "counts"))
    if kind == "zscore" and kind not in accept:
        message = "The AnnData holds z-scores, not counts."
        raise InputRefused(message, f"Accepted here: {', '.join(accept)}.")
    return AnnData(adata.X, obs=adata.obs.copy(), var=adata.var, uns=dict(adata.uns), obsm=dict(adata.obsm))


def _columns(obs: pd.DataFrame, name: str, card: DatasetCard | None) -> pd.DataFrame:
    """Return obs with all of `COLUMNS` first."""
    renamed = {}
    for column, names in ALIASES.items():
        known = next((alias for alias in names if alias in obs), None)
        if column not in obs and known is not None:
            renamed[known] = column
    obs = obs.rename(columns=renamed)
    filled = {"response": _response(obs, name), "dataset": _text(obs, "dataset", name)}
    filled["study"] = _text(obs, "study", card.accession if card else filled["dataset"])
    filled["sample"] = _text(obs, "sample", filled["dataset"])
    filled["patient_or_line"] = _text(obs, "patient_or_line", filled["sample"])
    facts = _facts(card)
    for column in COLUMNS[5:]:
        filled[column] = _text(obs, column, facts.get(column) or _UNKNOWN)
    others = obs.drop(columns=[column for column in COLUMNS if column in obs])
    return pd.concat([pd.DataFrame(filled, index=obs.index), others], axis=1)


def _facts(card: DatasetCard | None) -> dict[str, str | None]:
    """What the catalogue knows about all cells of a data set."""
    if card is None:
        return {"collection": "user"}
    return {
        "tissue": card.tissue,
        "cancer_type": card.cancer_type,
        "drug": card.regimen,
        "drug_type": card.drug_type,
        "time_point": card.time_point,
        "collection": card.collection,
    }


def _response(obs: pd.DataFrame, name: str) -> pd.Categorical:
    if "response" not in obs:
        return pd.Categorical([None] * len(obs), categories=RESPONSES)
    try:
        labels = read_labels(obs["response"].to_numpy(object))
    except InvalidInput as error:
        raise InvalidInput(f"obs['response'] of '{name}': {error}", error.remedy) from error
    return pd.Categorical(labels, categories=RESPONSES)


def _text(obs: pd.DataFrame, column: str, default: str | np.ndarray) -> np.ndarray:
    """Return a column as (n_cells,) text objects, with `default` where it is missing or empty."""
    fallback = np.broadcast_to(np.asarray(default, dtype=object), len(obs))
    if column not in obs:
        return fallback.copy()
    values = obs[column].astype(object)
    given = values.notna().to_numpy() & (values.astype(str).str.strip() != "").to_numpy()
    return np.where(given, values.astype(str).to_numpy(object), fallback)
