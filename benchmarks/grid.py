"""How fast a grid runs: experiments an hour with a cold and a warm cache, two workers against one, Dask, and heads.

    python benchmarks/grid.py --small       # about a minute on two idle cores
    python benchmarks/grid.py               # heads on 326,751 embedded cells of 512 and 3,072 values, from a memory map

All grids of a run are the same simulated experiments, so that ratios, not seconds, are what travels to another machine.
Prints Markdown with machine, date and command.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from embed import machine

from scdrugmap.evaluation.plan.grid import Grid
from scdrugmap.evaluation.plan.plan_file import Plan
from scdrugmap.evaluation.run.runner import run_grid
from scdrugmap.settings import Settings

HEADS = {False: ((326_751, 512), (326_751, 3_072)), True: ((20_000, 512), (4_000, 3_072))}  # (cells, dim)
SEEDS = {False: 8, True: 2}
ROUNDS = 3
WARM, PROCESSES, DASK = "one worker, warm cache", "two processes", "Dask, two workers"


def make_grid(settings: Settings, *, small: bool) -> Grid:
    """Return a grid of a baseline and a model on simulated cells."""
    cells = {"n_cells": 160 if small else 600, "n_genes": 300 if small else 1000, "n_samples": 8, "effect": 1.0}
    ask = {"models": ["hvg", "scgpt-mini"], "heads": {"hvg": ["logistic"], "scgpt-mini": ["mlp", "logistic"]}}
    ask |= {"split_by": ["cell", "sample"], "seeds": list(range(SEEDS[small]))}
    return Grid.from_plan(Plan(title="Speed", data={"cells": {"simulate": cells}}, ask=[ask]), settings)  # type: ignore[list-item]


def seconds(grid: Grid, settings: Settings, workers: str) -> float:
    """Return how long a grid takes whose results are not there; embeddings that are stay."""
    shutil.rmtree(settings.results, ignore_errors=True)
    start = time.perf_counter()
    done = run_grid(grid.experiments, grid.summaries, settings, workers=workers)
    took = time.perf_counter() - start
    failed = [run.outcome.reason for run in done.values() if run.outcome.state != "done"]
    if failed:
        raise SystemExit(f"The benchmark's own grid failed: {failed[0]}")
    return took


def grids(folder: Path, *, small: bool) -> dict[str, tuple[float, int]]:
    """Return seconds and experiments of each way to run the grid; of several rounds the best, as load only adds."""
    from distributed import LocalCluster

    settings = dataclasses.replace(Settings.from_env(), cache=folder / "cache", precomputed=folder / "none")
    grid = make_grid(settings, small=small)
    found = {"one worker, cold cache": seconds(grid, settings, "1")}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        ways = {WARM: "1", PROCESSES: "2", DASK: cluster.scheduler_address}
        for number in range(ROUNDS):
            for name, workers in ways.items():
                took = seconds(grid, settings, workers)
                if not number and workers != "1":
                    found[f"{name}, first time (workers import the packages)"] = took
                found[name] = min(took, found.get(name, took))
    return {name: (took, len(grid.experiments)) for name, took in found.items()}


def head(cells: int, dim: int, folder: Path, epochs: int | None) -> dict[str, Any]:
    """Return what benchmarks/heads.py measures of the paper's head, in a process that does nothing else."""
    words = [sys.executable, str(Path(__file__).with_name("heads.py")), "--head", "mlp", "--folder", str(folder)]
    words += ["--cells", str(cells), "--dim", str(dim), *(["--epochs", str(epochs)] if epochs else [])]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(out)
    return found


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few cells, one epoch")
    parser.add_argument("--epochs", type=int, help="of the head; its default of 10 where left out")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where memory maps go")
    arguments = parser.parse_args()
    command = " ".join(["benchmarks/grid.py", *sys.argv[1:]])
    print(f"{machine()}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, `python {command}`\n")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        found = grids(Path(scratch), small=arguments.small)
    warm = found[WARM][0]
    print("| grid | experiments | s | experiments/h | times one worker, warm |\n|---|---|---|---|---|")
    for name, (took, n) in found.items():
        print(f"| {name} | {n} | {took:.1f} | {n / took * 3600:,.0f} | {warm / took:.2f} |")
    overhead = found[DASK][0] / found[PROCESSES][0]
    print(f"\nDask takes {overhead:.2f} times as long as the same number of processes.\n")
    columns = ("head", "cells", "values a cell", "epochs", "fit, s", "of its own at most, MB", "file, MB")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    epochs = 1 if arguments.small else arguments.epochs
    for cells, dim in HEADS[arguments.small]:
        one = head(cells, dim, arguments.folder, epochs)
        held = f"{one['seconds']['fit']:.1f} | {one['anonymous_mb']:,} | {one['vectors_mb']:,}"
        print(f"| mlp | {cells:,} | {dim:,} | {epochs or 10} | {held} |")


if __name__ == "__main__":
    main()
