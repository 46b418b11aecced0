"""Peak memory and time of fitting one head on as many embedded cells as the catalogue has, read from a memory map.

    python benchmarks/heads.py --head mlp --cells 326751 --dim 512 --epochs 1 --folder /tmp

The vectors are random, with a class difference in some of them. Prints one JSON object. `anonymous_mb` is what the
process holds of its own at most, beyond what it held before; `resident_mb` counts the pages of the memory map that
happen to be in memory as well, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from scdrugmap.evaluation.strategies.features import Rows
from scdrugmap.evaluation.strategies.heads import HEADS, make_head

CATALOGUE_CELLS = 326_751  # of the primary collection, as the paper counts them (arXiv:2505.05612)
BLOCK = 2**14


def synthetic(n_cells: int, dim: int, folder: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors, (n_cells, dim) float32 in a file without a name, and labels; written in blocks."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(n_cells) < 0.5, "sensitive", "resistant").astype(object)
    shift = rng.normal(0, 0.1, dim).astype(np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:
        Z = np.memmap(file, dtype=np.float32, mode="w+", shape=(n_cells, dim))
    for start in range(0, n_cells, BLOCK):
        part = slice(start, start + BLOCK)
        rows = labels[part] == "resistant"
        Z[part] = rng.standard_normal((len(rows), dim), dtype=np.float32) + rows[:, None] * shift
    Z.flush()
    Z.flags.writeable = False
    return Z, labels


def held() -> dict[str, float]:
    """Return what this process holds now, in MB (Linux)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {words[0]: int(words[1]) / 1024 for words in lines if words and words[0] in ("RssAnon:", "VmRSS:")}
    return {"anonymous_mb": found["RssAnon:"], "resident_mb": found["VmRSS:"]}


class Watch:
    """The highest memory between entering and leaving, looked at twenty times a second."""

    def __enter__(self) -> Watch:
        self.before = held()
        self.peak = dict(self.before)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.ended.wait(0.05):
            self.peak = {key: max(value, self.peak[key]) for key, value in held().items()}


def main() -> None:
    """Measure one head."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--head", choices=list(HEADS), default="mlp")
    parser.add_argument("--cells", type=int, default=CATALOGUE_CELLS)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--epochs", type=int, help="of the mlp; its default where left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the memory map goes")
    asked = parser.parse_args()
    Z, labels = synthetic(asked.cells, asked.dim, asked.folder)
    order = np.random.default_rng(0).permutation(asked.cells)
    test, train = np.sort(order[: asked.cells // 5]), np.sort(order[asked.cells // 5 :])
    options = {"epochs": asked.epochs} if asked.epochs and asked.head == "mlp" else {}
    warm = make_head(asked.head, device=asked.device, **options)  # libraries are loaded before the count begins
    warm.fit(Z[:200], labels[:200]).predict_proba(Z[:200])
    head = make_head(asked.head, device=asked.device, **options)
    seconds = {}
    with Watch() as watch:
        start = time.perf_counter()
        head.fit(Rows(Z, train), labels[train])
        seconds["fit"] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        p = head.predict_proba(Rows(Z, test))
        seconds["predict"] = round(time.perf_counter() - start, 1)
    found = {
        "head": asked.head,
        "options": options,
        "cells": asked.cells,
        "dim": asked.dim,
        "vectors_mb": round(Z.nbytes / 2**20),
        "anonymous_mb": round(watch.peak["anonymous_mb"] - watch.before["anonymous_mb"]),
        "resident_mb": round(watch.peak["resident_mb"]),
        "seconds": seconds,
        "accuracy": round(float(((p >= 0.5) == (labels[test] == "resistant")).mean()), 4),
        "device": asked.device,
        "machine": platform.machine(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
