"""What the benchmark of embedding measured, as a table for people and as files that pages and documents read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scdrugmap.models.speed import SPEEDS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- measured: benchmarks/embed.py --write -->", "<!-- end of what is measured -->"

Record = Mapping[str, Any]


def _times(name: str) -> Any:
    return lambda record: f"{record[name]:.2f}x" if name in record else "–"


def _number(name: str, form: str) -> Any:
    return lambda record: format(record[name], form) if name in record else "–"


def _scores(name: str) -> Any:
    return lambda record: (
        f"{record[name + '_float32']:.3f} / {record[name + '_bfloat16']:.3f}" if name + "_float32" in record else "–"
    )


TABLES: dict[str, dict[str, Any]] = {
    "Speed": {
        "model": lambda record: f"`{record['model']}`",
        "size": lambda record: record["size"],
        "cells of": lambda record: record["cells_of"],
        "cells": _number("cells", "d"),
        "tokens a cell": lambda record: "{} to {}, median {}".format(*record["lengths"]),
        "cells/s": _number("cells_per_s", ".3g"),
        "tokens/s": _number("tokens_per_s", ",.0f"),
        "cells/s, forward only": _number("forward_cells_per_s", ".3g"),
        "against the plain loop": _times("against_plain"),
        "padded to the batch only": _times("against_padded"),
        "bfloat16": _times("against_bfloat16"),
        "compiled": _times("against_compiled"),
        "of the GEMM peak": _number("of_gemm", ".0%"),
        "the plain loop, of the GEMM peak": _number("plain_of_gemm", ".0%"),
        "padding": _number("padding", ".1%"),
    },
    "bfloat16": {
        "model": lambda record: f"`{record['model']}`",
        "cosine": _number("cosine", ".5f"),
        "cosine around the mean cell": _number("cosine_around_mean", ".4f"),
        "labelled cells": _number("labelled", "d"),
        "F1, float32 / bfloat16": _scores("f1"),
        "AUROC, float32 / bfloat16": _scores("auroc"),
    },
    "Memory": {
        "model": lambda record: f"`{record['model']}`",
        "weights' parameters": _number("n_parameters", ",d"),
        "peak at this size, MB": _number("peak_mb", ",.0f"),
        "CUDA peak, MB": _number("cuda_mb", ",.0f"),
        "2,000 cells, toy, MB": _number("few_mb", ",.0f"),
        "20,000 cells, toy, MB": _number("many_mb", ",.0f"),
        "growth": _number("growth", "+.1%"),
    },
    "How": {
        "model": lambda record: f"`{record['model']}`",
        "date": lambda record: record["date"],
        "machine": lambda record: record["machine"],
        "threads": _number("threads", "d"),
        "clock": lambda record: record["clock"],
        "load": _number("load", ".1f"),
        "torch": lambda record: record["torch"],
        "GEMM peak, GFLOP/s": _number("gemm_gflops", ".0f"),
        "plain loop": lambda record: f"batch {record['plain_batch']}, padded to {record['padded_to']}",
        "difference": _number("difference", ".0e"),
        "command": lambda record: f"`{record['command']}`",
    },
}


def rendered(records: Sequence[Record]) -> str:
    """Markdown tables of all records."""
    parts = []
    for title, columns in TABLES.items():
        rows = [list(columns), ["---"] * len(columns)]
        rows += [[str(show(record)) for show in columns.values()] for record in records]
        parts.append(f"### {title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(parts)


def kept(records: Sequence[Record], path: Path = SPEEDS) -> list[Record]:
    """Lay new records over those of a file, one a model, size and device; writes and gives all."""
    old = json.loads(path.read_text()) if path.is_file() else []
    known = {_place(record): record for record in [*old, *records]}
    path.write_text(json.dumps(list(known.values()), indent=1) + "\n")
    return list(known.values())


def write(records: Sequence[Record], path: Path = SPEEDS, document: Path = DOCUMENT) -> None:
    """Bring the file of speeds and the document's tables up to date; raises `ValueError` without marks."""
    text = document.read_text()
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        message = f"{document} lacks the lines {BEGIN} and {END}"
        raise ValueError(message)
    known = kept(records, path)
    document.write_text(f"{before}{BEGIN}\n\n{rendered(known)}\n\n{END}{after}")


def _place(record: Record) -> tuple[str, str, str]:
    return record["model"], record["size"], record["device"]
