"""The cached function, and nothing else. Do not move or edit `_embedding`: joblib keys on its name and its source.

Its arguments are the whole key and are what joblib's `metadata.json` prints; the cells reach the computation through
`scdrugmap.embeddings.pending`, a registry of this process. When embeddings change, a card's `recipe` says so.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from joblib import Memory
from joblib.memory import MemorizedFunc

from scdrugmap.embeddings import pending


def _embedding(*, model: str, weights: str, recipe: int, settings: str, data: str, shard: int) -> np.ndarray:
    return pending.compute(model=model, weights=weights, recipe=recipe, settings=settings, data=data, shard=shard)


@functools.cache  # lazily: `Memory.cache` makes a directory when it decorates
def embedding(root: Path) -> MemorizedFunc:
    """Give the cached function of one store; its results are read-only memory maps."""
    return Memory(root, mmap_mode="r", verbose=0).cache(_embedding)
