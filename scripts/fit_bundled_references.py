"""Fit the reference heads that come with the package, on labelled cells that stay outside the repository.

    python scripts/fit_bundled_references.py DATA_DIR [--model scgpt-mini --model hvg-pca]

`DATA_DIR` holds the .h5ad files and `SOURCES.csv` (a row a file: name, accession, sensitive, resistant, value_type,
label_origin). Every labelled set on a linear or logarithmic scale is used; z-scores are not. What is written under
prediction/reference/bundled/<model>/<name>/ are a head, quantiles and some hundred embedded cells; no expression.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

from scdrugmap.data.load import load_dataset
from scdrugmap.models import load_model
from scdrugmap.prediction.reference.fit import fit_reference
from scdrugmap.prediction.reference.reference import BUNDLED_REFERENCES

NAME = "four-studies"
MODELS = ("scgpt-mini", "hvg-pca", "minilm")
SUMMARY = (
    "Melanoma T cells before checkpoint therapy, lung cancer lines and erlotinib, one breast cancer line and "
    "paclitaxel: a small, mixed reference that shows how the system works."
)
NOTES = (
    "It mixes kinds of resistance: patients who did not respond (their T cells), lines that a drug does not kill "
    "(untreated cells), and cells that survived a drug. A score of one kind says little about another.",
    "The two erlotinib sets of GSE118767 are one study of untreated lines on two mixes: the label is the cell line.",
)


def sources(folder: Path) -> list[dict[str, str]]:
    """Return the rows of SOURCES.csv that can teach a reference."""
    with (folder / "SOURCES.csv").open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if (folder / f"{row['name']}.h5ad").is_file()]
    labelled = [row for row in rows if float(row["sensitive"]) + float(row["resistant"]) > 0]
    return [row for row in labelled if "z-score" not in row["value_type"]]


def main() -> None:
    """Fit and write one reference a model, and print its honest number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the labelled cells")
    parser.add_argument("--model", action="append", choices=MODELS, help="fit only this one; repeat")
    arguments = parser.parse_args()
    rows = sources(arguments.data)
    cells = [load_dataset(arguments.data / f"{row['name']}.h5ad") for row in rows]
    for model in arguments.model or MODELS:
        fitted = fit_reference(
            cells,
            load_model(model),
            name=NAME,
            head="logistic",
            label_basis={row["name"]: row["label_origin"] for row in rows},
            notes=NOTES,
            summary=SUMMARY,
            progress=True,
        )
        bundled = replace(fitted, card=replace(fitted.card, bundled=True))
        folder = bundled.save(BUNDLED_REFERENCES / model / NAME)
        score = fitted.card.headline
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(
            f"{model}: {score['metric']} {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}], {size:,} bytes"
        )
        print(f"  {fitted.card.held_out['verdict']}")


if __name__ == "__main__":
    main()
