"""Answers on disk, by what was asked: asked twice, a question is paid once, also after a kill -9.

A file holds the reply alone: neither what was asked nor any key.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.prompting_answers import Reply
from scdrugmap.settings import Settings


@dataclass(frozen=True, eq=False)
class Request:
    """One question to an endpoint: all that decides the answer, as far as a client can."""

    model: str
    messages: Sequence[Mapping[str, str]]
    n_cells: int
    seed: int
    temperature: float | None = 0.0
    logprobs: bool = True

    def key(self, host: str) -> str:
        """Return the SHA-256 of the question and of whom it is put to."""
        asked = [host, self.model, self.messages, self.seed, self.temperature, self.logprobs]
        return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()


class Replies:
    """The replies in a folder, a file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Reply | None:
        """Return a reply; a file that is no reply counts as none."""
        try:
            return Reply.from_dict(json.loads(_path(self.folder, key).read_text()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply, whole or not at all."""
        write_json(_path(self.folder, key), reply.as_dict())

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside `path`, flushed to the disk, and rename it over; raises `InvalidInput` where that fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        message = f"An answer that was paid cannot be kept in '{path.parent}': {error.strerror}."
        raise InvalidInput(message, "Free some space, or set SCDRUGMAP_CACHE to another folder.") from None


def prompts_folder(embeddings: Path | None) -> Path:
    """Return the folder of replies, which stands beside the store of embeddings: the settings' own where that is None.

    Replies are always kept, as they were paid.
    """
    return (Settings.from_env().embeddings if embeddings is None else embeddings).with_name("prompts")
