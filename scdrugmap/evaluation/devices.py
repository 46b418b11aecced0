"""One GPU is one slot: a process of a pool takes a card of this machine for itself and keeps it."""

from __future__ import annotations

import fcntl
import functools
import warnings
from pathlib import Path
from typing import IO

_held: list[IO[str]] = []  # a lock lasts as long as its file is open; the system lets go of it when the process ends


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
    locks.mkdir(parents=True, exist_ok=True)
    for index in range(n_cards):
        file = (locks / f"gpu-{index}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return f"cuda:{index}"
    return "auto"
