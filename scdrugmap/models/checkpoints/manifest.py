"""What weights are, by content: hashes of their files, and the manifest that remembers them beside a conversion."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scdrugmap.progress import reporting

log = logging.getLogger(__name__)
BUNDLED = ("checkpoint.json", "model.safetensors")
_BLOCK, _LARGE = 1 << 20, 1 << 30  # bytes that are hashed at a time, and from which on it takes more than a second


def files_hash(files: Mapping[str, str]) -> str:
    """One hash over files: "sha256:..." of their sorted roles and SHA-256, wherever they lie."""
    lines = "".join(f"{role} {digest}\n" for role, digest in sorted(files.items()))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex; a bar on stderr says how far it is in one that takes seconds."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file, reporting(size >= _LARGE, -(-size // _BLOCK), "MiB") as tell:
        while block := file.read(_BLOCK):
            digest.update(block)
            tell(1)
    return digest.hexdigest()


def digests(files: Mapping[str, Path], converted: Path) -> dict[str, str]:
    """SHA-256 by role; files that an earlier conversion recorded with the same size and time are not read again."""
    known = {_stamp(entry): entry["sha256"] for manifest in _manifests(converted) for entry in manifest["files"]}
    return {role: known.get(_stamp(describe(path))) or sha256(path) for role, path in files.items()}


def remembered_hash(files: Mapping[str, Path], converted: Path) -> str:
    """Hash files that are read as they are, and note their digests so that they are not read for it again."""
    hashes = digests(files, converted)
    whole = files_hash(hashes)
    places = "".join(str(path.resolve()) for path in files.values())
    note = converted / f"{whole.removeprefix('sha256:')[:16]}-{hashlib.sha256(places.encode()).hexdigest()[:8]}"
    try:
        note.mkdir(parents=True, exist_ok=True)
        write_manifest(note, files, hashes, whole)
    except OSError as error:
        log.warning("hashes of weights are not kept: %s", error)
    return whole


def describe(path: Path) -> dict[str, Any]:
    """Give what tells whether a file is still the one that was converted."""
    status = path.stat()
    return {"path": str(path.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def write_manifest(folder: Path, files: Mapping[str, Path], hashes: Mapping[str, str], weights_hash: str) -> None:
    """Record what was converted, from what and when, as `manifest.json` beside the converted tensors."""
    content = {
        "schema": 1,
        "weights_hash": weights_hash,
        "files": [{"role": role, **describe(path), "sha256": hashes[role]} for role, path in files.items()],
        "converted": {name: sha256(folder / name) for name in BUNDLED if (folder / name).is_file()},
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    (folder / "manifest.json").write_text(json.dumps(content, indent=1) + "\n")


def _stamp(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    return entry["path"], entry["size"], entry["mtime_ns"]


def _manifests(converted: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(converted.glob("*/manifest.json")):
        yield json.loads(path.read_text())
