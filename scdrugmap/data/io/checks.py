"""The report of a file's checks, the error of a file that is refused, and how large a file may be."""

from __future__ import annotations

import contextlib
import csv
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from scdrugmap.errors import InvalidInput

MB, GB = 2**20, 2**30
# What libhdf5, anndata, pandas, gzip and zipfile raise on bytes that are not what they claim to be.
PARSER_FAILURES = (
    OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, EOFError, MemoryError, ArithmeticError,
    SystemError, AssertionError, struct.error, zlib.error, zipfile.BadZipFile, csv.Error,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How much a file may hold. Everything is read from metadata, and refused, before it is allocated.

    The defaults admit the largest atlases that one machine can embed and stop what only a decompression bomb needs.
    """

    file_mb: int = 8192
    cells: int = 2_000_000
    genes: int = 250_000
    nonzeros: int = 1_000_000_000  # 8 bytes each once read
    unpacked_gb: float = 64  # of all that is read, before compression
    ratio: float = 500  # of unpacked to stored bytes; deflate cannot pass about 1,030
    ratio_from_mb: int = 256  # unpacked size from which `ratio` counts: small constant columns pack as well as bombs
    chunk_mb: int = 1024  # of one HDF5 chunk, which is unpacked as a whole
    strings_mb: int = 512  # of all text that is read
    string_length: int = 10_000
    columns: int = 5_000  # of obs and of var
    objects: int = 50_000  # groups and arrays in an HDF5 file, members of an archive
    depth: int = 16  # of nested groups


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: "ok", "warning" or "stop", in words a user can act on."""

    level: Literal["ok", "warning", "stop"]
    message: str
    remedy: str = ""


class InputRefused(InvalidInput):
    """A file that cannot be used; `checks` is what was found before and, last, what stopped it."""

    def __init__(self, message: str, remedy: str = "", checks: tuple[Check, ...] | list[Check] = ()) -> None:
        super().__init__(message, remedy)
        self.checks = list(checks)

    def __reduce__(self) -> tuple[type[InputRefused], tuple[str, str, list[Check]]]:  # type: ignore[override]
        """Keep remedy and checks when the error crosses a process."""
        return type(self), (str(self), self.remedy, self.checks)


@dataclass
class ValidationReport:
    """Collects the checks of one file in the order in which they are made; `stop` and `within` refuse it."""

    file: str
    limits: Limits
    checks: list[Check] = field(default_factory=list)

    def ok(self, message: str) -> None:
        """Note what is as it should be."""
        self.checks.append(Check("ok", message))

    def warn(self, message: str, remedy: str = "") -> None:
        """Note what was mended or may matter."""
        self.checks.append(Check("warning", message, remedy))

    def stop(self, message: str, remedy: str) -> NoReturn:
        """Refuse the file, naming it."""
        message = f"'{self.file}': {message}"
        self.checks.append(Check("stop", message, remedy))
        raise InputRefused(message, remedy, self.checks)

    def within(self, what: str, value: float, limit: float, remedy: str = "") -> None:
        """Refuse when `value` is above `limit`."""
        if value > limit:
            remedy = remedy or "Split the file, or raise the limit: read_h5ad(path, limits=Limits(...))."
            self.stop(f"{what} is {value:,.0f}; the limit is {limit:,.0f}.", remedy)

    @contextlib.contextmanager
    def translated(self, kind: str) -> Iterator[None]:
        """Turn a parser's failure into a refusal that names the file; parsers' warnings are dropped."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except InvalidInput as error:
            if isinstance(error, InputRefused):
                raise
            self.stop(str(error), error.remedy)
        except PARSER_FAILURES as error:
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self.stop(
                f"cannot be read as {kind}: it is truncated, damaged or not what it claims to be ({detail}).",
                "Copy or download the file again, or write it anew with adata.write_h5ad('new.h5ad').",
            )
