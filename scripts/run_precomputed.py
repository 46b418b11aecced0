"""Run the benchmark on the labelled real cells that we have, for the results that come with the repository.

    python scripts/run_precomputed.py DATA_DIR [--output cache/results] [--model hvg ...] [--workers 1]

`DATA_DIR` holds the .h5ad files named in `SETS`. Runs, predictions and scores.parquet are written below `--output`;
what is there already is not run again, so delete the folder for a fresh start. Cells stay where they are: predictions
hold cell names, labels and scores, no expression. What each number means: docs/protocols.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from scdrugmap.errors import ScDrugMapError
from scdrugmap.evaluation.gap import leakage_gap
from scdrugmap.evaluation.grid import benchmark
from scdrugmap.evaluation.results import read_predictions, read_runs, read_scores
from scdrugmap.evaluation.tables import leaderboard
from scdrugmap.settings import Settings

HEADLINE = "sadefeldman_melanoma_ici_tcells"
HEADLINE_SEEDS = (0, 1, 2)
PLUMBING = "plumbing only"
ERLOTINIB = ("scmix_celseq2_5lines_erlotinib", "scmix_celseq2_3lines_erlotinib", "pc9_erlotinib_d11_resistant_only")

# What a reader must know of each set before its score; the sources' own notes say more.
SETS = {
    HEADLINE: "GSE120575, a subset: 550 T cells of 19 pre-treatment samples; log values; one label a patient",
    "a375_plx4720": "GSE108383; per-gene z-scores; sensitive = parental sample, resistant = resistant sample",
    "jhu006_gefitinib": "GSE157220; per-gene z-scores; labels derived from expression (EpiSen state) by the source",
    "mda231_paclitaxel_15cells": f"{PLUMBING}: SRP040309 has 10 labelled cells; untreated against drug-tolerant",
    ERLOTINIB[0]: f"{PLUMBING}: GSE118767; the label is the cell line's (bulk screen); only HCC827 is sensitive",
    ERLOTINIB[1]: f"{PLUMBING}: GSE118767; the label is the cell line's (bulk screen); only HCC827 is sensitive",
    ERLOTINIB[2]: f"{PLUMBING}: GSE149214; PC9 after 11 days of erlotinib, all resistant",
}
ENTRIES = {
    "constant": ("constant",),
    "hvg": ("logistic", "gradient-boosting"),
    "hvg-pca": ("mlp", "logistic"),
    "scgpt-mini": ("mlp", "logistic"),
}


@dataclass(frozen=True)
class Question:
    """What is asked of every entry."""

    datasets: tuple[str, ...]
    split_by: str
    protocol: str = "pooled"
    facet: str = "all"
    seed: int = 0


def questions() -> Iterator[Question]:
    """Yield what can be asked of these sets: each by itself, and erlotinib across sets and studies."""
    for seed in HEADLINE_SEEDS:
        yield Question((HEADLINE,), "cell", seed=seed)
        yield Question((HEADLINE,), "sample", seed=seed)
    for name in SETS:
        if name not in (HEADLINE, ERLOTINIB[2]):
            yield Question((name,), "cell")
            yield Question((name,), "sample")
    for name in ERLOTINIB[:2]:  # several lines in a sample
        yield Question((name,), "patient_or_line")
    for split_by in ("dataset", "study"):
        yield Question(ERLOTINIB, split_by, protocol="cross-data", facet="regimen")


def run(folder: Path, models: list[str], settings: Settings, workers: str) -> None:
    """Put every question to every entry; what cannot be done is recorded and said."""
    for model in models:
        for asked in questions():
            try:
                benchmark(
                    [folder / f"{name}.h5ad" for name in asked.datasets],
                    [model],
                    heads=ENTRIES[model],
                    protocol=asked.protocol,
                    split_by=asked.split_by,
                    facet=asked.facet,
                    seed=asked.seed,
                    workers=workers,
                    settings=settings,
                    remarks=SETS,
                )
            except ScDrugMapError as error:
                print(f"{model} on {'+'.join(asked.datasets)} by {asked.split_by}: {error}")


def report(settings: Settings) -> None:
    """Print the headline: both splits of the melanoma set, and the gap between them with its interval."""
    scores, made = read_scores(settings), read_runs(settings)
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200):
        for metric in ("f1", "auroc"):
            for split_by in ("cell", "sample"):
                board = leaderboard(scores, metric, split_by=split_by, facet_value=HEADLINE)
                print(f"\n{HEADLINE}: {metric}, split by {split_by}")
                print(
                    board.select(
                        "rank", "model", "head", pl.col("value", "ci_low", "ci_high", "constant", "delta").round(3)
                    )
                )
        mine = made.filter(state="done", protocol="pooled", facet_value=HEADLINE).sort(
            "model", "head", "split_by", "seed"
        )
        gaps = []
        for (model, head), runs in mine.group_by("model", "head", maintain_order=True):
            tables = {
                split: [read_predictions(run_id, settings) for run_id in runs.filter(split_by=split)["run_id"]]
                for split in ("cell", "sample")
            }
            gaps += [
                {"model": model, "head": head, **vars(gap)} for gap in leakage_gap(tables["cell"], tables["sample"])
            ]
        print("\nLeakage gap: split by cell minus split by sample, bootstrap over patients, mean over seeds")
        print(pl.DataFrame(gaps).with_columns(pl.col(pl.Float64).round(3)))


def main() -> None:
    """Read the arguments, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the labelled cells")
    parser.add_argument("--output", type=Path, default=Settings.from_env().precomputed)
    parser.add_argument("--model", action="append", choices=ENTRIES, help="run only this one; repeat")
    parser.add_argument("--workers", default="1")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    if output.name != "results":
        parser.error("--output must be a folder called 'results'; embeddings are cached beside it")
    settings = replace(Settings.from_env(), cache=output.parent, precomputed=output)
    run(arguments.data, arguments.model or list(ENTRIES), settings, arguments.workers)
    report(settings)


if __name__ == "__main__":
    main()
