"""Files that other processes read while they are written: whole or not at all, and one writer at a time.

Everything in the package that writes a file or folder for somebody else to read does it through here.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

READABLE = 0o644  # a server may run as another user than the one who wrote


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a draft to write to, which becomes `path` in one step where the block ends without an error.

    A reader sees the old file or the new one, never half of it; a killed writer leaves at most a hidden `.tmp` file.
    The folder is made. The draft keeps the name's suffix before `.tmp`, so that writers which look at it are content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.chmod(READABLE)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path, *, once: bool = False) -> Iterator[Path]:
    """Give an empty draft folder, which takes the place of `folder` where the block ends without an error.

    With `once`, a folder that stands there by then stays, as others may be reading it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    draft.mkdir()
    try:
        yield draft
        if once and folder.exists():
            return
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes in one step; what stood there is replaced. Raises `OSError`."""
    with replacing(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def write_once(path: Path, content: str | bytes) -> bool:
    """Write text or bytes in one step; return False, and leave what is there, where the file stands already."""
    if path.exists():
        return False
    write(path, content)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a plain value as one line of JSON in one step. Raises `OSError`."""
    write(path, json.dumps(value))


def take(path: Path) -> FileLock | None:
    """Return the lock of a file, held until it is released or this process ends; None where another holds it.

    Raises `OSError` where the file cannot be made, `NotImplementedError` on a file system without locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


@contextlib.contextmanager
def claimed(path: Path, stopped: Callable[[], bool], look: float) -> Iterator[bool]:
    """Hold the lock of a file while inside; no two threads or processes hold one at a time.

    Gives False, and no lock, where `stopped` said so while it waited; it is asked every `look` seconds. A file system
    without locks lets everyone in. Raises `OSError` where the file cannot be made.
    """
    try:
        while (lock := take(path)) is None and not stopped():
            time.sleep(look)
    except NotImplementedError:
        yield True
        return
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()
