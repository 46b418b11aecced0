"""Fit the parameters of `scdrugmap.data.simulate` on real counts; only the parameters are committed, never a cell.

    python scripts/fit_simulator.py DATA_DIR

`DATA_DIR` holds raw counts as .h5ad (obs column `cell_line_or_patient`). Two files are written beside the simulator:
simulate_params.tsv.gz (a row a gene) and simulate_params.json (library sizes, sources). Nothing is drawn at random, so
the same data give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdrugmap.data.genes import harmonise
from scdrugmap.data.io.read import read_h5ad

OUT = Path(__file__).resolve().parent.parent / "scdrugmap" / "data"
N_GENES = 5000
RARE = 1e-7  # share of a cell's molecules given to a gene that a profile never shows
VISIBLE = 4e-5  # program genes get at least this share, or no cell of a small simulation would show them
COUNTS = {
    "scmix_celseq2_5lines_erlotinib": "plate",
    "scmix_celseq2_3lines_erlotinib": "plate",
    "pc9_erlotinib_d11_resistant_only": "droplet",
    "pbmc3k_subset_unlabelled": "droplet",
}
# Which genes move with the response: the MITF-low/AXL-high state that survives BRAF inhibition and its opposite, after
# Tirosh 2016 (doi 10.1126/science.aad0501), Shaffer 2017 (10.1038/nature22794), Rambow 2018 (PMID 30017245)
PROGRAMS = {
    "resistant": """
        AXL NGFR EGFR JUN FOSL1 WNT5A TNC CCN1 CCN2 SERPINE1 VIM FN1 CDH2 TGFBI LOXL2 COL1A1 COL1A2 COL5A1
        THBS1 IL6 CXCL8 HMOX1 SOX9 KLF4 ABCB1 ABCG2 ABCC1 ALDH1A1 ALDH1A3 CD44 S100A4 S100A6 ANXA1 ANXA2 TIMP1
        TIMP3 SPARC NNMT IGFBP3 IGFBP7 CAV1 LGALS1 ZEB1 TWIST1 SNAI2 PDGFRB MET NRG1 GAS6 BCL2L1 MCL1 FOSL2
        DKK1 PLAUR LAMB3 KRT7 MT2A NQO1 GDF15 ATF3
    """,
    "sensitive": """
        MITF MLANA PMEL TYR DCT TYRP1 RAB27A CDK2 BCL2A1 SOX10 GPM6B EDNRB PAX3 GPR143 RAB38 SLC45A2 TRPM1
        S100B MIA PRAME CD63 APOE HLA-A HLA-B HLA-C B2M TAP1 DUSP6 SPRY2 SPRY4 ETV4 ETV5 CCND1 MYC MKI67 TOP2A
        CDK1 MCM2 MCM5 PCNA TYMS E2F1 BIRC5 CCNB1 AURKA HMGB2 STMN1 TUBA1B RRM2 UBE2C CENPF PTTG1 NUSAP1 IRF4
        PPARGC1A TBX2 KIT ERBB3 LEF1 PHACTR1
    """,
}


@dataclass(frozen=True)
class Group:
    """Cells of one line or patient of one set, over that set's genes."""

    name: str
    protocol: str
    symbols: np.ndarray  # (genes,)
    counts: sp.csr_matrix  # (cells, genes)

    @property
    def sizes(self) -> np.ndarray:
        """Molecules of each cell, (cells,)."""
        return np.asarray(self.counts.sum(axis=1)).ravel().astype(np.float64)

    def shares(self) -> pd.Series:
        """Share of all molecules that each gene holds."""
        totals = np.asarray(self.counts.sum(axis=0)).ravel()
        return pd.Series(totals / totals.sum(), index=self.symbols)

    def excess(self) -> pd.DataFrame:
        """Per gene: variance beyond Poisson and squared mean, summed over cells (the moments of the dispersion)."""
        sizes, shares = self.sizes, self.shares().to_numpy()
        squares = np.asarray(self.counts.multiply(self.counts).sum(axis=0)).ravel()
        cross = np.asarray(self.counts.T @ sizes).ravel()
        residual = squares - 2 * shares * cross + shares**2 * (sizes**2).sum()
        above = residual - shares * sizes.sum()
        return pd.DataFrame({"above": above, "mean2": shares**2 * (sizes**2).sum()}, index=self.symbols)


def groups(folder: Path) -> list[Group]:
    """Split every counts set into its lines or patients; genes under current symbols, others left out."""
    found = []
    for name, protocol in COUNTS.items():
        adata = read_h5ad(folder / f"{name}.h5ad")
        adata = adata[:, harmonise(adata.var_names).known & (adata.var["ensembl_id"] != "").to_numpy()]
        owner = adata.obs["cell_line_or_patient"].astype(str).to_numpy()
        for line in sorted(set(owner)):
            counts = sp.csr_matrix(adata.X[owner == line], dtype=np.float64)
            found.append(Group(f"{name.split('_')[0]}:{line}", protocol, adata.var_names.to_numpy(object), counts))
    return found


def profiles(found: list[Group]) -> pd.DataFrame:
    """Shares per gene of each kind of cell: every cancer line once, and blood cells as `immune`."""
    by_kind: dict[str, list[pd.Series]] = {}
    for group in found:
        kind = "immune" if group.name.startswith("pbmc") else group.name.split(":")[1]
        by_kind.setdefault(kind, []).append(group.shares())
    columns = {kind: pd.concat(parts, axis=1).fillna(0).mean(axis=1) for kind, parts in sorted(by_kind.items())}
    return pd.DataFrame(columns).fillna(0)


def dispersions(found: list[Group], level: pd.Series) -> pd.Series:
    """Negative-binomial dispersion of each gene by moments, drawn half-way to that of genes of like expression."""
    moments = pd.concat([group.excess() for group in found]).groupby(level=0).sum().reindex(level.index)
    raw = (moments["above"] / moments["mean2"]).clip(0.05, 20)
    trend = raw.groupby(pd.qcut(level, 20), observed=True).transform("median")
    return np.exp((np.log(raw) + np.log(trend)) / 2)


def interleave(ranked: list[str], programs: list[str]) -> list[str]:
    """Genes by expression with a program gene at every tenth place, so that any first n genes hold both."""
    special = set(programs)
    others = iter([gene for gene in ranked if gene not in special])
    waiting = iter(programs)
    return [(next(waiting, None) if place % 10 == 0 else None) or next(others) for place in range(N_GENES)]


def gene_table(found: list[Group]) -> pd.DataFrame:
    """Return the table that the simulator reads, a row a gene, in the order in which genes are taken."""
    shares = profiles(found)
    lists = {name: text.split() for name, text in PROGRAMS.items()}
    program = {gene: name for name, genes in lists.items() for gene in genes}
    pairs = [gene for pair in zip(*lists.values(), strict=True) for gene in pair]
    shares = shares.reindex(shares.index.union(program)).fillna(0)
    level = shares.mean(axis=1).sort_values(ascending=False, kind="stable")
    dispersion = dispersions(found, level[level > 0]).reindex(level.index).fillna(1.0)
    order = interleave(level.index.to_list(), [gene for gene in pairs if gene in level.index])
    table = shares.loc[order].clip(lower=RARE)
    mine = [gene for gene in order if gene in program]
    malignant = [column for column in table if column != "immune"]
    table.loc[mine, malignant] = table.loc[mine, malignant].clip(lower=VISIBLE)
    table = np.log10(table).round(2)
    table.insert(0, "ensembl_id", harmonise(order).ensembl_id)
    table.insert(1, "program", [program.get(gene, "") for gene in order])
    table.insert(2, "dispersion", dispersion.loc[order].round(3))
    return table.rename_axis("symbol")


def libraries(found: list[Group]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of the natural log of molecules per cell, by protocol, over lines and patients."""
    out = {}
    for protocol in sorted(set(COUNTS.values())):
        logs = [np.log(group.sizes) for group in found if group.protocol == protocol]
        out[protocol] = {
            "log_mean": round(float(np.mean(np.concatenate(logs))), 4),
            "log_sd": round(float(np.mean([values.std() for values in logs])), 4),
        }
    return out


def write(table: pd.DataFrame, facts: dict[str, object]) -> None:
    """Write both files; gzip without a time stamp keeps the bytes the same."""
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as handle:
        handle.write(table.to_csv(sep="\t", lineterminator="\n").encode())
    (OUT / "simulate_params.tsv.gz").write_bytes(raw.getvalue())
    (OUT / "simulate_params.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path)
    folder = parser.parse_args().data_dir
    found = groups(folder)
    table = gene_table(found)
    fitted_on = {group.name: group.counts.shape[0] for group in found}
    write(table, {"libraries": libraries(found), "fitted_on_cells": fitted_on, "n_genes": len(table)})


if __name__ == "__main__":
    main()
