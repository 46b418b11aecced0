"""What a plan over the catalogue costs in hours, from measured cells/s. No data and no weights are read.

    python benchmarks/cost.py benchmarks/plans/paper-pooled-tissue.toml
    python benchmarks/cost.py PLAN --rate scgpt=900 --rate uce=120    # what benchmarks/embed.py measured on your GPU

Rates are cells embedded a second. Those that are not given are read from the table that `benchmarks/embed.py --write`
keeps (`--device` says of which kind), and a model that nobody measured gets no estimate. A frozen encoder embeds each
cell once. LoRA trains the cells of its steps, at three times the price of embedding them (measured: docs/lora.md), and
passes validation and test cells through; every fold is trained anew. Fitting heads is not in it: benchmarks/heads.py.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

from embed_table import SPEEDS

from scdrugmap.data.catalog import cell_count
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.lora_options import LoraOptions
from scdrugmap.evaluation.outlines import Outline
from scdrugmap.evaluation.plan import BASELINES
from scdrugmap.evaluation.plans import catalogue, expand, read_plan
from scdrugmap.evaluation.protocols import VALIDATION_FOLDS

BACKWARD = 3.0  # a step over embedding its cells: docs/lora.md


def lora_cells(asked: Experiment, known: dict[str, Outline]) -> float:
    """Return how many cells one LoRA experiment embeds, a trained one counted as `BACKWARD`."""
    total = cell_count(asked.datasets).total
    options = LoraOptions.of(asked.options)
    if asked.train:
        sides = [(cell_count(asked.train).total, total - cell_count(asked.train).total)]
    else:
        units = {study for name in asked.datasets for study in known[name].studies}
        of = {"dataset": len(asked.datasets), "study": len(units)}
        n = (
            asked.folds
            if asked.protocol == "pooled" and asked.split_by == "cell"
            else of.get(asked.split_by, asked.folds)
        )
        n = min(n, asked.folds) if asked.protocol == "pooled" else n
        sides = [(total - total // n, total // n)] * n if n > 1 else []  # one unit: it is recorded as impossible
    held = 1 / VALIDATION_FOLDS[0]
    return sum(
        options.budget(int(train * (1 - held))) * options.batch_size * BACKWARD + options.checks * train * held + test
        for train, test in sides
    )


def work(path: Path) -> dict[tuple[str, str], float]:
    """Return the cells to embed by model and strategy; a trained cell counts as `BACKWARD`."""
    plan = read_plan(path)
    tables = catalogue(plan)
    known = {one.name: one for table in tables.values() for one in table}
    embedded: dict[str, set[str]] = defaultdict(set)
    cells: dict[tuple[str, str], float] = defaultdict(float)
    for asked in expand(plan, tables, fetch=False):
        if asked.model in BASELINES:
            continue
        if asked.strategy == "lora":
            cells[asked.model, "lora"] += lora_cells(asked, known)
        else:
            embedded[asked.model] |= set(asked.datasets)
            cells[asked.model, asked.strategy] = cell_count(embedded[asked.model]).total
    return dict(cells)


def rates(given: list[str], device: str) -> dict[str, float]:
    """Return cells/s by model: the table's for a kind of device, and over it what was given."""
    with SPEEDS.open() as file:
        found = {row["model"]: float(row["cells_per_s"]) for row in csv.DictReader(file) if row["device"] == device}
    return found | {model: float(rate) for model, _, rate in (pair.partition("=") for pair in given)}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--rate", action="append", default=[], metavar="MODEL=CELLS_PER_S")
    parser.add_argument("--device", default="cpu", help="of the measured table: cpu or cuda")
    arguments = parser.parse_args()
    known = rates(arguments.rate, arguments.device)
    print("| model | strategy | million cells to embed (trained: times 3) | cells/s | hours |\n|---|---|---|---|---|")
    for (model, strategy), cells in work(arguments.plan).items():
        rate = known.get(model)
        hours = f"{cells / rate / 3600:,.1f}" if rate and strategy != "prompt" else "not measured"
        print(f"| {model} | {strategy} | {cells / 1e6:,.2f} | {f'{rate:.3g}' if rate else ''} | {hours} |")


if __name__ == "__main__":
    main()
