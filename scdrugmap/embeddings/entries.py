"""What the store of embeddings holds, read from joblib's own sidecars."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scdrugmap.embeddings.pending import Key


@dataclass(frozen=True)
class Entry:
    """One shard of one embedding on disk."""

    key: Key
    size_bytes: int
    written: datetime  # UTC
    seconds: float  # that it took to compute


def entries(root: Path) -> list[Entry]:
    """List the shards in a store, newest first; an entry that is being written is left out."""
    listed = (_entry(path) for path in sorted(root.glob("**/_embedding/*/metadata.json")))
    return sorted((entry for entry in listed if entry), key=lambda entry: entry.written, reverse=True)


def _entry(sidecar: Path) -> Entry | None:
    output = sidecar.with_name("output.pkl")
    try:
        described = json.loads(sidecar.read_text())
        key = Key(**{name: ast.literal_eval(text) for name, text in described["input_args"].items()})
        status = output.stat()
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Entry(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), float(described["duration"]))
