"""What a prediction leaves behind: one row per cell as a table, and a file that scanpy opens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl
from anndata import AnnData

from scdrugmap.errors import InvalidInput
from scdrugmap.files import replacing

SUFFIXES = (".csv", ".h5ad")


def to_table(adata: AnnData) -> pl.DataFrame:
    """Return one row per cell in the order of `adata`: what the CSV holds.

    Columns: cell, the sample column where there is one (named `sample`), response_given where the file had labels,
    response, p_resistant, novelty, novel, cluster, umap_1, umap_2. Of a model that was asked there is no novelty and no
    novel, and a cell without an answer has neither response nor p_resistant.
    """
    obs, umap = adata.obs, adata.obsm["X_umap"]
    sample = adata.uns["scdrugmap"]["prediction"]["sample_column"]
    columns = {"cell": pl.Series(adata.obs_names.to_numpy().astype(str))}
    if sample:
        columns["sample"] = pl.Series(obs[sample].astype(str).to_numpy(dtype=object), dtype=pl.String)
    if "response_given" in obs:
        columns["response_given"] = _words(obs["response_given"])
    columns["response"] = _words(obs["response"])
    for name in ("p_resistant", "novelty", "novel"):
        if name in obs:
            columns[name] = pl.Series(obs[name].to_numpy(), nan_to_null=True)
    columns["cluster"] = pl.Series(obs["cluster"].astype(str).to_numpy(dtype=object), dtype=pl.String)
    return pl.DataFrame({**columns, "umap_1": umap[:, 0], "umap_2": umap[:, 1]})


def _words(values: Iterable[object]) -> pl.Series:
    """Return words, null where there is none."""
    return pl.Series([None if value != value or value is None else str(value) for value in values], dtype=pl.String)


def check_target(path: Path, source: Path | None = None) -> Path:
    """Return `path` if it can be written; raises `InvalidInput` for a foreign suffix, no folder, the input itself."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        message = f"The output '{path.name}' must end in {' or '.join(SUFFIXES)}."
        raise InvalidInput(message, f"Name it {path.stem or 'prediction'}.csv or {path.stem or 'prediction'}.h5ad")
    if not path.parent.is_dir():
        message = f"There is no folder '{path.parent}' to write '{path.name}' into."
        raise InvalidInput(message, f"Run: mkdir -p '{path.parent}'")
    if path.is_dir():
        message = f"'{path}' is a folder."
        raise InvalidInput(message, "Name a file for the output.")
    if source is not None and path.exists() and path.samefile(source):
        message = f"The output '{path.name}' is the input file itself."
        raise InvalidInput(message, "Give the output another name; the input is never overwritten.")
    return path


def write(adata: AnnData, path: Path) -> None:
    """Write the table (.csv) or the AnnData (.h5ad) of predicted cells beside `path`, and rename it into place."""
    path = check_target(path)
    with replacing(path) as draft:
        if path.suffix.lower() == ".csv":
            to_table(adata).write_csv(draft, float_precision=6)
        else:
            adata.write_h5ad(draft, compression="gzip")
