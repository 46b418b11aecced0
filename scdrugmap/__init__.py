"""scDrugMap: which cells of a tumour will resist the drug, and can a foundation model be trusted to say so?

The public names are resolved on first use, so that `import scdrugmap` and `scdrugmap --help` stay instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdrugmap.data.catalog.catalog import DATASETS
    from scdrugmap.data.io.read import read_h5ad
    from scdrugmap.embeddings.compute import embed
    from scdrugmap.evaluation.benchmark import benchmark
    from scdrugmap.models import MODELS, load_model
    from scdrugmap.prediction.pipeline import predict
    from scdrugmap.version import __version__

_HOME = {
    "__version__": "scdrugmap.version",
    "MODELS": "scdrugmap.models",
    "DATASETS": "scdrugmap.data.catalog.catalog",
    "load_model": "scdrugmap.models",
    "read_h5ad": "scdrugmap.data.io.read",
    "embed": "scdrugmap.embeddings.compute",
    "predict": "scdrugmap.prediction.pipeline",
    "benchmark": "scdrugmap.evaluation.benchmark",
}

__all__ = ["DATASETS", "MODELS", "__version__", "benchmark", "embed", "load_model", "predict", "read_h5ad"]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    message = f"module 'scdrugmap' has no attribute '{name}'"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
