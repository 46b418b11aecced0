"""One GPU is one slot: a process of a pool takes a card of this machine for itself and keeps it."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

from filelock import BaseFileLock

from scdrugmap.files import take

_held: list[BaseFileLock] = []  # for the life of this process; the system lets go of them when it ends


def cards() -> int:
    """Count the CUDA devices that this process sees."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a driver that is too old says so: then there is no GPU
        return torch.cuda.device_count()


@functools.cache
def own_device(locks: Path, n_cards: int) -> str:
    """Return the device of this process, "cuda:<n>" for the first card that no other process holds, else "auto".

    `locks` is a folder that all processes of this machine see; what is decided stays for the life of the process.
    """
    for index in range(n_cards):
        lock = take(locks / f"gpu-{index}")
        if lock is not None:
            _held.append(lock)
            return f"cuda:{index}"
    return "auto"
