"""What a plan over the catalogue costs in hours, from measured cells/s. No data and no weights are read.

    python benchmarks/cost.py benchmarks/plans/paper-pooled-tissue.toml
    python benchmarks/cost.py PLAN --rate scgpt=900 --rate uce=120    # what benchmarks/embed.py measured on your GPU

Rates are cells embedded a second. Those that are not given are read from the table that `benchmarks/embed.py --write`
keeps (`--device` says of which kind), and a model that nobody measured gets no estimate. What is counted is said in
`scdrugmap/evaluation/plan/compute_cost.py`; fitting heads is not in it: benchmarks/heads.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scdrugmap.evaluation.plan.compute_cost import Work, work
from scdrugmap.evaluation.plan.experiments import catalogue, expand
from scdrugmap.evaluation.plan.plan_file import read_plan
from scdrugmap.models.speed import speeds


def of_plan(path: Path) -> Work:
    """Return the cells to embed by model and strategy; a trained cell counts as `cost.BACKWARD`."""
    plan = read_plan(path)
    tables = catalogue(plan)
    return work(expand(plan, tables, fetch=False), {one.name: one for table in tables.values() for one in table})


def rates(given: list[str], device: str) -> dict[str, float]:
    """Return cells/s by model: the table's for a kind of device, and over it what was given."""
    kind = {"cpu": lambda name: name == "cpu", "cuda": lambda name: name != "cpu"}[device]
    found = {one.model: one.cells_per_s for one in speeds() if kind(one.device)}
    return found | {model: float(rate) for model, _, rate in (pair.partition("=") for pair in given)}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--rate", action="append", default=[], metavar="MODEL=CELLS_PER_S")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the measured table")
    arguments = parser.parse_args()
    known = rates(arguments.rate, arguments.device)
    print("| model | strategy | million cells to embed (trained: times 3) | cells/s | hours |\n|---|---|---|---|---|")
    for (model, strategy), cells in of_plan(arguments.plan).items():
        rate = known.get(model)
        hours = f"{cells / rate / 3600:,.1f}" if rate and strategy != "prompt" else "not measured"
        print(f"| {model} | {strategy} | {cells / 1e6:,.2f} | {f'{rate:.3g}' if rate else ''} | {hours} |")


if __name__ == "__main__":
    main()
