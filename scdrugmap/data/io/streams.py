"""Bytes of files, of gzip files and of members of a zip, never more of them than the limits allow.

Nothing is unpacked to disk, so that no name in an archive can choose where a file lands.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from scdrugmap.data.io.checks import GB, MB, ValidationReport


class Bounded(io.RawIOBase):
    """A stream that refuses the file once more bytes came out than the limits allow."""

    def __init__(self, inner: BinaryIO, stored: int, most: float, report: ValidationReport) -> None:
        self.inner, self.stored, self.most, self.report = inner, stored, most, report
        self.passed = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer and count what passed."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.inner.read(len(view))
        view[: len(data)] = data
        self.passed += len(data)
        limits = self.report.limits
        self.report.within("The unpacked text (MB)", self.passed / MB, self.most / MB)
        if self.passed > limits.ratio_from_mb * MB:
            self.report.within("The compression ratio", self.passed / max(self.stored, 1), limits.ratio)
        return len(data)


@dataclass(frozen=True)
class Member:
    """A file in a folder or zip; `name` is only for telling what it is."""

    name: str
    container: Path
    stored: int  # bytes in the container
    zipped: bool = False

    @property
    def base(self) -> str:
        """Last part of the name in lower case, without .gz."""
        return self.name.replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".gz")

    @contextlib.contextmanager
    def open(self, report: ValidationReport, most: float | None = None) -> Iterator[BinaryIO]:
        """Yield the unpacked bytes, at most `most` of them."""
        most = report.limits.unpacked_gb * GB if most is None else most
        with contextlib.ExitStack() as stack:
            if self.zipped:
                archive = stack.enter_context(zipfile.ZipFile(self.container))
                if archive.getinfo(self.name).flag_bits & 1:
                    report.stop(f"{self.base} is encrypted.", "Zip the files without a password.")
                raw: BinaryIO = cast("BinaryIO", stack.enter_context(archive.open(self.name)))
            else:
                raw = stack.enter_context(self.container.open("rb"))
            outer = io.BufferedReader(Bounded(raw, self.stored, most, report))
            if outer.peek(2)[:2] == b"\x1f\x8b":
                unpacked = cast("BinaryIO", stack.enter_context(gzip.GzipFile(fileobj=outer)))
                outer = io.BufferedReader(Bounded(unpacked, self.stored, most, report), buffer_size=2**18)
            yield cast("BinaryIO", outer)


def members(path: Path, report: ValidationReport) -> list[Member]:
    """Files in a folder (not below it) or in a zip; what macOS adds is left out."""
    if path.is_dir():
        files = [item for item in sorted(path.iterdir()) if item.is_file()]
        report.within("The number of files in the folder", len(files), report.limits.objects)
        listed = [Member(item.name, item, item.stat().st_size) for item in files]
    else:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        report.within("The number of files in the archive", len(infos), report.limits.objects)
        listed = [Member(info.filename, path, info.compress_size, zipped=True) for info in infos]
    return [item for item in listed if "__MACOSX" not in item.name and not item.base.startswith(".")]
