"""A named, ordered, read-only mapping that suggests near names."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from scdrugmap.errors import UnknownName


class Keyed(Protocol):
    """Anything with a `key`: the word that names it in Python, CLI, URL, files and on screen."""

    @property
    def key(self) -> str: ...  # noqa: D102


Record = TypeVar("Record", bound=Keyed)


class Registry(Mapping[str, Record]):
    """Frozen records by key, in the order in which they were declared.

    Iterating yields keys, `.values()` the records; an unknown key raises `UnknownName` with the nearest known ones.
    """

    def __init__(self, noun: str, records: Callable[[], Iterable[Record]]) -> None:
        self.noun = noun
        self._declare = records  # called on first use: importing reads no file

    @functools.cached_property
    def _records(self) -> dict[str, Record]:
        records: dict[str, Record] = {}
        for record in self._declare():
            if record.key in records:
                message = f"two records of the {self.noun} registry are called '{record.key}'"
                raise ValueError(message)
            records[record.key] = record
        return records

    def __getitem__(self, key: str) -> Record:
        """Return the record called `key`."""
        try:
            return self._records[key]
        except KeyError:
            raise self._unknown(key) from None

    def __contains__(self, key: object) -> bool:
        """Tell whether a record is called `key` (`Mapping` would wait for a KeyError that never comes)."""
        return key in self._records

    def get(self, key: str, default: Record | None = None) -> Record | None:  # type: ignore[override]
        """Return the record called `key`, or `default`."""
        return self._records.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"<{len(self)} {self.noun}s: {', '.join(self)}>"

    def _unknown(self, key: str) -> UnknownName:
        lowered = {known.lower(): known for known in self}
        near = difflib.get_close_matches(str(key).lower(), lowered, n=1, cutoff=0.6)
        hint = f" Did you mean '{lowered[near[0]]}'?" if near else ""
        shown = list(self) if len(self) <= 20 else [*list(self)[:20], "..."]
        return UnknownName(f"There is no {self.noun} called '{key}'.{hint}", f"Known: {', '.join(shown)}.")
