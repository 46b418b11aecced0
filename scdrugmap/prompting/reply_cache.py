"""Answers on disk, by what was asked: asked twice, a question is paid once, also after a kill -9.

A file holds the reply alone: neither what was asked nor any key. Processes that share the folder, such as the workers
of a benchmark, ask a question once: whoever asks it holds a lock, which the system releases when a process dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scdrugmap import files
from scdrugmap.errors import InvalidInput
from scdrugmap.prompting.replies import Reply
from scdrugmap.settings import Settings

LOOK = 0.05  # seconds between two looks at a lock that another process holds


@dataclass(frozen=True, eq=False)
class Request:
    """One question to an endpoint: all that decides the answer, as far as a client can."""

    model: str
    messages: Sequence[Mapping[str, str]]
    n_cells: int
    seed: int
    max_tokens: int  # of the answer, beside `MAX_TOKENS_PER_CELL` for each of its cells
    temperature: float | None = 0.0
    logprobs: bool = True

    def key(self, host: str) -> str:
        """Return the SHA-256 of the question and of whom it is put to."""
        question = [host, self.model, self.messages, self.seed, self.max_tokens, self.temperature, self.logprobs]
        return hashlib.sha256(json.dumps(question, ensure_ascii=False).encode()).hexdigest()


class ReplyCache:
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

    @contextlib.contextmanager
    def claimed(self, name: str, stopped: Callable[[], bool], look: float = LOOK) -> Iterator[bool]:
        """Hold the lock of a name while inside; no two threads or processes hold one at a time.

        Gives False, and no lock, where `stopped` said so while it waited; it is asked every `look` seconds. A file
        system without locks lets everyone in.
        """
        path = self.folder / "locks" / name
        make_folder(path.parent)
        try:
            with files.claimed(path, stopped, look) as held:
                yield held
        except OSError as error:
            raise _not_kept(path.parent, error) from None

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None


def make_folder(folder: Path) -> None:
    """Make the folder of what is kept; raises `InvalidInput` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_kept(folder, error) from None


def _not_kept(folder: Path, error: OSError) -> InvalidInput:
    message = f"An answer that is paid cannot be kept in '{folder}': {error.strerror}."
    return InvalidInput(message, "Free some space, or set SCDRUGMAP_CACHE to another folder.")


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step; raises `InvalidInput` where that fails."""
    try:
        files.write_json(path, value)
    except OSError as error:
        raise _not_kept(path.parent, error) from None


def prompts_folder(embeddings: Path | None) -> Path:
    """Return the folder of replies, which stands beside the store of embeddings: the settings' own where that is None.

    Replies are always kept, as they were paid.
    """
    return (Settings.from_env().embeddings if embeddings is None else embeddings).with_name("prompts")
