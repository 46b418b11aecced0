#!/usr/bin/env python
"""How fast cells become vectors, as ratios of runs that take turns.

    python benchmarks/embed.py --model scgpt --size published
    python benchmarks/embed.py --all --size published --write     # models/speed.json and docs/performance.md anew

Weights are random where the published ones need a download: the time does not depend on them. Cells are simulated, of
mixed depth, or drawn from --data with a fixed seed. `--clock cpu` counts the seconds of the processor on one thread:
what an idle machine would take, for machines that are not. Nothing here is a timed test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from embed_measure import FEWEST_LABELLED, Clock, downstream, measure
from embed_memory import measure_alone, measure_growth
from embed_models import random_encoder
from embed_table import rendered, write

from scdrugmap.data.io.read import read_h5ad
from scdrugmap.data.simulate import parameters, simulate
from scdrugmap.errors import ScDrugMapError
from scdrugmap.models import MODELS
from scdrugmap.models.card import ModelCard
from scdrugmap.models.core.encoder import Encoder

FEWEST, MOST, TOGETHER = 4, 512, 2_000  # cells; the last where they see each other
ALONE = 2  # cells whose peak memory is measured
LABELLED, LABELLED_GENES = 200, 600  # of the simulated cells on which heads are compared


def main() -> int:
    """Measure what was asked for; 2 where nothing could be."""
    given = arguments().parse_args()
    if given.clock == "cpu" and given.threads != 1:
        sys.exit("--clock cpu adds up the threads: give --threads 1")
    torch.set_num_threads(given.threads)
    embedding = [card.key for card in MODELS.values() if card.kind != "baseline" and not card.prompted]
    keys = embedding if given.all else given.model
    records = []
    for key in keys:
        try:
            records.append(record(MODELS[key], given))
        except ScDrugMapError as error:
            print(error.line, file=sys.stderr)
            continue
        if given.write:
            write(records[-1:])
    print(json.dumps(records, indent=1) if given.json else rendered(records))
    return 0 if records else 2


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", action="append", choices=[card.key for card in MODELS.values()])
    which.add_argument("--all", action="store_true", help="all models with weights, one after the other")
    parser.add_argument("--size", choices=["published", "small"], default="published")
    parser.add_argument("--cells", type=int, help="by default as many as take --seconds")
    parser.add_argument("--seconds", type=float, default=20.0, help="of our own loop; all in all about ten times that")
    parser.add_argument("--head-seconds", type=float, default=60.0, help="for the labelled cells; 0 leaves heads out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--data", type=Path, help="an .h5ad whose cells, drawn at random, take the place of simulated ones"
    )
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too, its translations not timed")
    parser.add_argument("--precision", choices=["both", "float32"], default="both", help="float32 leaves bfloat16 out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument("--no-growth", action="store_true", help="leave out the memory of 2,000 and 20,000 cells")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="into models/speed.json and docs/performance.md")
    return parser


def record(card: ModelCard, given: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model, in plain values."""
    pool = mixed(read_h5ad(given.data)) if given.data else pool_of_cells(TOGETHER if card.context else MOST)
    encoder = random_encoder(card, pool, given.size, device=given.device)
    clock = Clock(given.clock, encoder.device)
    found = described(card, given, pool)
    found["n_parameters"] = sum(parameter.numel() for parameter in encoder.network.parameters())
    cells = taken(pool, given.cells or how_many(encoder, pool, given.seconds, clock))
    lengths = encoder.tokenize(cells).lengths
    found["lengths"] = [int(lengths.min()), int(lengths.max()), int(np.median(lengths))]
    both = given.precision == "both"
    found |= measure(encoder, cells, rounds=given.rounds, clock=clock, bfloat16=both, compiled=given.compile)
    found["load"] = (found["load"] + os.getloadavg()[0]) / 2
    if both and given.head_seconds:
        found |= downstream(encoder, labelled_cells(encoder, given.head_seconds, clock))
    if not given.no_memory:
        found |= peak(card, cells, given)
    if not given.no_memory and not given.no_growth:
        found |= measure_growth(card.key, given.device, given.threads)
    return found


def described(card: ModelCard, given: argparse.Namespace, pool: AnnData) -> dict[str, Any]:
    """What was run where, when and how; folders are left out."""
    command = shlex.join(["benchmarks/embed.py", *sys.argv[1:]])
    if given.data:
        command = command.replace(shlex.quote(str(given.data)), shlex.quote(given.data.name))
    return {
        "model": card.key,
        "size": given.size,
        "device": torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else given.device,
        "machine": machine(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "threads": given.threads,
        "clock": given.clock,
        "load": os.getloadavg()[0],
        "cells_of": named(given.data, pool) if given.data else "simulated",
        "command": command,
    }


def machine() -> str:
    """The processor's name and the number of its cores."""
    names = [line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def pool_of_cells(n_cells: int) -> AnnData:
    """Simulated droplet cells over all genes that the simulator knows, of four samples, in mixed order."""
    return mixed(simulate(n_cells=n_cells, n_genes=len(parameters().symbols), n_samples=4, seed=0))


def mixed(adata: AnnData, seed: int = 0) -> AnnData:
    """Give all cells in a random order: a file has those of one sample, and of one depth, behind each other."""
    return adata[np.random.default_rng(seed).permutation(adata.n_obs)].copy()


def named(path: Path, adata: AnnData) -> str:
    """Name of a data set and, where its cells tell, its accession."""
    accessions = sorted(set(adata.obs["accession"].astype(str))) if "accession" in adata.obs else []
    return " ".join([path.stem, *(f"({accession})" for accession in accessions)])


def taken(pool: AnnData, n_cells: int) -> AnnData:
    """The first cells of a pool."""
    return pool[: min(n_cells, pool.n_obs)].copy()


def how_many(encoder: Encoder, pool: AnnData, seconds: float, clock: Clock) -> int:
    """Cells that take so many seconds."""
    if encoder.card.context:
        return TOGETHER
    return int(np.clip(seconds / seconds_a_cell(encoder, pool, clock), FEWEST, MOST))


def seconds_a_cell(encoder: Encoder, pool: AnnData, clock: Clock) -> float:
    """Time of a cell, from the first two (or a context)."""
    some = taken(pool, TOGETHER if encoder.card.context else 2)
    encoder.embed(some)
    return clock.time(lambda: encoder.embed(some))[0] / some.n_obs


def labelled_cells(encoder: Encoder, seconds: float, clock: Clock) -> AnnData:
    """Labelled simulated cells for the heads, as many as take `seconds`; few genes, so that there are enough."""
    cells = mixed(simulate(n_cells=LABELLED, n_genes=LABELLED_GENES, n_samples=4, effect=2.0, seed=1), seed=1)
    n_cells = int(seconds / seconds_a_cell(encoder, cells, clock))
    return taken(cells, n_cells if n_cells >= FEWEST_LABELLED else 0)


def peak(card: ModelCard, cells: AnnData, given: argparse.Namespace) -> dict[str, float]:
    """Peak memory of a process that embeds some of these cells and does nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        some = taken(cells, cells.n_obs if card.context else ALONE)
        AnnData(some.X, obs=some.obs[[]], var=some.var).write_h5ad(path)
        alone = measure_alone(card.key, path, given.size, given.device, given.threads)
    return {name: alone[name] for name in ("peak_mb", "cuda_mb") if name in alone}


if __name__ == "__main__":
    sys.exit(main())
