"""Peak memory of a process that embeds a backed file into a memory map and does nothing else; prints JSON.

`measure_growth` runs this file once for each number of cells. The high-water mark is the kernel's, of all that is
resident: libraries, weights, cells, and the pages of both files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from scdrugmap.data.simulate import simulate
from scdrugmap.models import MODELS

GENES = 800
CELLS = (2_000, 20_000)


def write_cells(path: Path, n_cells: int, n_genes: int = GENES) -> None:
    """Write a synthetic .h5ad of raw counts, as users have them."""
    adata = simulate(n_cells=n_cells, n_genes=n_genes, n_samples=4, seed=n_cells)
    adata.uns.clear()
    adata.write_h5ad(path)


def embed_file(key: str, path: Path, size: str, device: str, threads: int) -> dict[str, Any]:
    """Embed a backed file into a memory map beside it; megabytes at the peak and before the first cell."""
    import torch
    from embed_models import random_encoder

    torch.set_num_threads(threads)
    adata = ad.read_h5ad(path, backed="r")
    encoder = random_encoder(MODELS[key], adata[:8].to_memory(), size, device=device)
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        out = np.memmap(Path(folder) / "z", dtype=np.float32, mode="w+", shape=(adata.n_obs, encoder.dim))
        encoder.embed(adata, out=out)
    found: dict[str, Any] = {"cells": adata.n_obs, "before_mb": before, "peak_mb": resident()}
    if encoder.device.type == "cuda":
        found["cuda_mb"] = torch.cuda.max_memory_allocated(encoder.device) / 2**20
    return found


def resident() -> float:
    """High-water mark of this process's resident memory, in megabytes (Linux).

    Not `ru_maxrss`, which a child process begins with at its parent's.
    """
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**10


def measure_alone(key: str, path: Path, size: str, device: str, threads: int) -> dict[str, Any]:
    """Do `embed_file` in a process of its own."""
    arguments = [key, str(path), "--size", size, "--device", device, "--threads", str(threads)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure_growth(key: str, device: str, threads: int, cells: tuple[int, int] = CELLS) -> dict[str, float]:
    """Peak memory at both numbers of cells, at toy size: weights would hide what grows."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for n_cells in cells:
            path = Path(folder) / f"{n_cells}.h5ad"
            write_cells(path, n_cells)
            peaks.append(measure_alone(key, path, "small", device, threads)["peak_mb"])
    return {"few_mb": peaks[0], "many_mb": peaks[1], "growth": peaks[1] / peaks[0] - 1}


def main() -> None:
    """Measure one model on one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(json.dumps(embed_file(given.model, given.file, given.size, given.device, given.threads)))


if __name__ == "__main__":
    main()
