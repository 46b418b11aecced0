"""Fit the bundled defaults of the baselines hvg and hvg-pca on real cells; only genes and loadings are written.

    python scripts/fit_hvg_baselines.py DATA_DIR scdrugmap/models

Sets of raw counts only: log-normalised ones of few genes have other totals and would decide the variances. Held-out
studies are left out, as for scGPT-mini. Evaluation fits the baselines anew on each training side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
from pretraining_cells import read_all

from scdrugmap.models import MODELS
from scdrugmap.models.checkpoints.load import code, resolve_settings
from scdrugmap.models.core.cells import Cells

BASELINES = ("hvg", "hvg-pca")


def training_cells(folder: Path) -> ad.AnnData:
    """All allowed cells with raw counts over the union of their genes; a gene that a set lacks counts as zero."""
    sets = [adata for row, adata in read_all(folder) if "raw counts" in row["value_type"]]
    return ad.concat(sets, join="outer", fill_value=0, index_unique="-", keys=[str(i) for i in range(len(sets))])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    cells = Cells.from_anndata(training_cells(args.data_dir))
    for key in BASELINES:
        card = MODELS[key]
        checkpoint = code(card, "fit").fit(cells, resolve_settings(card, {}))
        checkpoint.save(args.out / key.replace("-", "_") / "weights")
        print(f"{key}: {len(cells)} cells, {checkpoint.config}")


if __name__ == "__main__":
    main()
