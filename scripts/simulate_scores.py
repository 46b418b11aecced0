"""Write a made-up table of scores of the catalogue's shape: for timing the pages and tables, never for reading.

    python scripts/simulate_scores.py OUT.parquet [--datasets 60] [--seed 0]

Columns are those of `results.store.SCORES`; `source` is "simulated", `simulated` is true, and every data set's name
begins with that word, so that no table takes the rows for measured ones. At full size there are over three hundred
thousand rows: ten models and the baselines, freeze and LoRA, pooled by cell and by sample with three seeds, left out by
data set, few-shot with three seeds, and every pair of twenty data sets. Nothing is fitted: a value is a model's
strength and a data set's, with noise.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import polars as pl

from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.evaluation.results.store import SCORES

MODELS = (
    "scgpt",
    "geneformer",
    "scfoundation",
    "uce",
    "cellplm",
    "scbert",
    "celllm",
    "tgpt",
    "llama3-8b",
    "scgpt-mini",
)
BASELINES = (("constant", "constant"), ("hvg", "logistic"), ("hvg-pca", "mlp"), ("hvg", "gradient-boosting"))
TISSUES = ("Cell line", "Tumor tissue", "Blood", "Bone marrow", "Organoid")
SHOTS = (0, 1, 5, 10, 50)
SEEDS = (0, 1, 2)
SHOWN = ("f1", "f1_macro", "auroc", "auroc_within", "auprc", "balanced_accuracy", "mcc", "brier", "ece")
LEAK = 0.15  # how much more a split by cell scores
TEACHERS = 20  # data sets of the transfer matrix


def entries() -> list[tuple[str, str, str]]:
    """Return model, head and strategy of each entry."""
    frozen = [(model, "mlp", "freeze") for model in MODELS]
    tuned = [(model, "mlp", "lora") for model in MODELS]
    return [*frozen, *tuned, *((model, head, "freeze") for model, head in BASELINES)]


def runs(names: list[str]) -> pl.DataFrame:
    """Return what was asked: one row a run and scored set of cells."""
    facts = ("protocol", "split_by", "shots", "facet", "facet_value", "train", "test", "fold", "seed")
    kinds = {"shots": pl.Int64, "seed": pl.Int64, "train": pl.List(pl.String), "test": pl.List(pl.String)}
    rows: list[tuple[object, ...]] = []
    for name, split_by, seed in itertools.product(names, ("cell", "sample"), SEEDS):
        rows.append(("pooled", split_by, None, "all", name, [name], [name], "all", seed))
    for number, tissue in enumerate(TISSUES):
        inside = names[number :: len(TISSUES)]
        for split_by, protocol in itertools.product(("cell", "sample"), ("pooled",)):
            rows.append((protocol, split_by, None, "tissue", tissue, inside, inside, "all", 0))
            rows += [(protocol, split_by, None, "tissue", tissue, inside, [one], f"dataset:{one}", 0) for one in inside]
        for shots, seed in itertools.product(SHOTS, SEEDS):
            rows.append(("cross-data", "dataset", shots, "tissue", tissue, inside, inside, "all", seed))
            rows += [("cross-data", "dataset", shots, "tissue", tissue, inside, [one], one, seed) for one in inside]
    few = names[:TEACHERS]
    pairs = [(a, b) for a, b in itertools.product(few, few) if a != b]
    rows += [("cross-data", "dataset", 0, "all", f"{a}+{b}", [a], [b], "all", 0) for a, b in pairs]
    return pl.DataFrame(rows, schema=dict.fromkeys(facts, pl.String) | kinds, orient="row")


def simulate_scores(n_datasets: int = 60, metrics: tuple[str, ...] = SHOWN, seed: int = 0) -> pl.DataFrame:
    """Return made-up scores, columns as `results.SCORES`; the same seed gives the same table."""
    rng = np.random.default_rng(seed)
    names = [f"simulated-{number:02d}" for number in range(n_datasets)]
    asked = runs(names)
    who = pl.DataFrame(entries(), schema=["model", "head", "strategy"], orient="row")
    transfer = (pl.col("facet") == "all") & (pl.col("protocol") == "cross-data") & (pl.col("strategy") == "lora")
    table = who.join(asked, how="cross").filter(~transfer).with_row_index("number")
    strength = dict(zip(who.unique(maintain_order=True).iter_rows(), rng.normal(0, 0.05, who.height), strict=True))
    hard = dict(zip(names, rng.normal(0, 0.08, n_datasets), strict=True))
    base = np.array([strength[row] for row in table.select("model", "head", "strategy").iter_rows()])
    first, tested = table["test"].list.first(), table["test"].list.len()
    base += np.array([hard[name] for name in first]) + 0.65
    base += LEAK * (table["split_by"] == "cell").to_numpy() + 0.02 * np.log1p(table["shots"].fill_null(0).to_numpy())
    base[(table["model"] == "constant").to_numpy()] = 0.5
    shares = dict(zip(names, rng.uniform(0.2, 0.8, n_datasets).round(3), strict=True))
    sizes = dict(zip(names, rng.integers(200, 9000, n_datasets).tolist(), strict=True))
    run = table.select(pl.struct(pl.exclude("number", "test", "fold")).rank("dense").alias("run"))["run"]
    table = table.with_columns(
        run_id=pl.Series([f"{number:016x}" for number in run]),
        base=pl.Series(base),
        n=pl.Series([sizes[name] for name in first]) * tested,
        prevalence=pl.Series([shares[name] for name in first]),
        source=pl.lit("simulated"),
        simulated=pl.lit(True),
        variant=pl.lit(""),
        design=pl.lit(""),
    )
    table = table.join(pl.DataFrame({"metric": list(metrics)}), how="cross")
    lower = ~np.array([METRICS[name].higher_is_better for name in metrics])[np.tile(np.arange(len(metrics)), len(base))]
    value = np.clip(table["base"].to_numpy() + rng.normal(0, 0.03, table.height), 0.01, 0.99)
    value = np.where(lower, 1 - value, value)
    table = table.with_columns(value=pl.Series(value), ci_low=pl.Series(value - 0.05), ci_high=pl.Series(value + 0.05))
    return table.select(pl.col(name).cast(kind) for name, kind in SCORES.items())


def main(words: list[str]) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--datasets", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    table = simulate_scores(options.datasets, seed=options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(options.out, compression="zstd")
    print(f"{table.height} made-up rows written to {options.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
