"""The catalogue: one TOML file a data set, read on first use into `DATASETS`, and what follows from all of them.

Facets, shared controls, cell totals and the table of the Datasets page are derived from the cards. What the source
states about groups of sets (facet members at odds with its rows, cells known only together) is in
`catalog/_published.toml`.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from scdrugmap.data.catalog.card import ROW_LISTS, Collection, DatasetCard
from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.registry import Registry
from scdrugmap.settings import PACKAGE

CATALOG = PACKAGE / "data" / "catalog"
COLLECTIONS: tuple[Collection, ...] = ("primary", "external", "added")
CATALOGUE_FACETS = ("all", "tissue", "cancer_type", "drug_type", "regimen")

Facets = dict[str, dict[str, list[str]]]


class Membership(BaseModel):
    """Members that the source's facet table names, where its own rows say otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    collection: Collection
    facet: str
    value: str
    members: tuple[str, ...]  # empty: the facet table lacks this value
    why: str


class CellPool(BaseModel):
    """Data sets whose cells are published only as a sum."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    members: tuple[str, ...]
    cells_sensitive: int
    cells_resistant: int


class Published(BaseModel):
    """What the source states about groups of data sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    memberships: tuple[Membership, ...]
    pools: tuple[CellPool, ...]


@dataclass(frozen=True)
class CellCount:
    """Cells of a group of data sets; copies shared between sets are counted as often as the source counts them."""

    sensitive: int
    resistant: int
    uncounted: tuple[str, ...]  # members whose cells no source gives, alone or as a whole pool; not in the sums

    @property
    def total(self) -> int:
        """Cells of both classes."""
        return self.sensitive + self.resistant


def read_card(key: str, text: str) -> DatasetCard:
    """Parse one data set's TOML; what is wrong with it is said by file and field."""
    try:
        return DatasetCard(key=key, **tomllib.loads(text))
    except (ValidationError, tomllib.TOMLDecodeError, TypeError) as error:
        message = f"catalog/{key}.toml is not a data set card: {_reasons(error)}"
        raise InvalidInput(message, "docs/adding-a-dataset.md lists the fields.") from error


@functools.cache
def published_groups() -> Published:
    """Return what the source states about groups of data sets."""
    return Published(**tomllib.loads((CATALOG / "_published.toml").read_text("utf-8")))


def facets(collection: Collection | None = None, *, published: bool = False) -> Facets:
    """Return the data sets behind each value of each facet: `{facet: {value: [keys]}}`.

    Parameters
    ----------
    collection
        One collection; None for all of them, where cancer types go by the broader of two names ("Lung cancer").
    published
        Membership as the source's facet table has it, slips included, instead of the corrected one.
    """
    if collection is not None and collection not in COLLECTIONS:
        message = f"There is no collection called '{collection}'."
        raise UnknownName(message, f"Known: {', '.join(COLLECTIONS)}.")
    cards = [card for card in DATASETS.values() if collection in (None, card.collection)]
    members: Facets = {facet: {} for facet in CATALOGUE_FACETS}
    for card in cards:
        for facet in CATALOGUE_FACETS:
            value = _facet_value(card, facet, published=published, broad=collection is None and not published)
            if value:
                members[facet].setdefault(value, []).append(card.key)
    if published:
        _as_in_facet_table(members, collection)
    return members


def cell_count(keys: Iterable[str]) -> CellCount:
    """Return the cells of a group of data sets, from its cards and from the pools that lie wholly inside it."""
    wanted = dict.fromkeys(keys)
    cards = [DATASETS[key] for key in wanted]
    counted = [(c.cells_sensitive, c.cells_resistant) for c in cards if c.cells_sensitive is not None]
    pools = [pool for pool in published_groups().pools if wanted.keys() >= set(pool.members)]
    pooled = {key for pool in pools for key in pool.members}
    return CellCount(
        sensitive=sum(s or 0 for s, _ in counted) + sum(pool.cells_sensitive for pool in pools),
        resistant=sum(r or 0 for _, r in counted) + sum(pool.cells_resistant for pool in pools),
        uncounted=tuple(card.key for card in cards if card.cells is None and card.key not in pooled),
    )


def pool_of(key: str) -> CellPool | None:
    """Return the pool that holds a data set's cells, None where they are known by themselves or not at all."""
    return next((pool for pool in published_groups().pools if key in pool.members), None)


def table() -> pl.DataFrame:
    """Return the catalogue as one row a data set, in its order; columns are those of `DatasetCard.to_row`."""
    types: dict[str, Any] = {
        "cells": pl.Int64,
        "cells_sensitive": pl.Int64,
        "cells_resistant": pl.Int64,
        "pmid": pl.Int64,
    }
    types |= dict.fromkeys(("regimen", "time_point", "cells_source"), pl.String) | {"share_sensitive": pl.Float64}
    types |= dict.fromkeys(ROW_LISTS, pl.List(pl.String))
    return pl.DataFrame([card.to_row() for card in DATASETS.values()], schema_overrides=types, infer_schema_length=None)


def _read() -> list[DatasetCard]:
    """Read all cards, in the source's order, and tell those of one study what they share."""
    paths = sorted(path for path in CATALOG.glob("*.toml") if not path.name.startswith("_"))
    cards = [read_card(path.stem, path.read_text("utf-8")) for path in paths]
    cards.sort(key=lambda card: (COLLECTIONS.index(card.collection), card.series or 0, card.key))
    shared = dict(_shared_controls(cards))
    return [card.model_copy(update=shared.get(card.key, {}) | _pooled(card.key)) for card in cards]


def _shared_controls(cards: list[DatasetCard]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find sets that are compared with the same untreated cells; yield what their cards should say.

    They are arms of one study on one line, labelled by time point, with as many sensitive samples; and at least two
    of them give one and the same number of sensitive cells. An arm without a published number is taken to share it.
    """
    arms: dict[tuple[object, ...], list[DatasetCard]] = {}
    for card in cards:
        if card.label_basis == "time point":
            arm = (card.study, card.material, card.time_point, card.samples_sensitive)
            arms.setdefault(arm, []).append(card)
    for group in arms.values():
        counts = [card.cells_sensitive for card in group if card.cells_sensitive is not None]
        if len(counts) >= 2 and len(set(counts)) == 1:
            for card in group:
                others = tuple(other.key for other in group if other is not card)
                yield card.key, {"shares_controls_with": others, "shared_sensitive_cells": counts[0]}


def _pooled(key: str) -> dict[str, Any]:
    pool = pool_of(key)
    if pool is None:
        return {}
    others = tuple(member for member in pool.members if member != key)
    return {"pooled_with": others, "pooled_cells": (pool.cells_sensitive, pool.cells_resistant)}


def _facet_value(card: DatasetCard, facet: str, *, published: bool, broad: bool) -> str | None:
    if facet == "all":
        return "All"
    if broad and facet == "cancer_type":
        return card.cancer_group
    value: str | None = card.published(facet) if published else getattr(card, facet)
    return value


def _as_in_facet_table(members: Facets, collection: Collection | None) -> None:
    """Put the facet table's own members in place; `members` is changed."""
    for entry in published_groups().memberships:
        if collection in (None, entry.collection):
            values = members[entry.facet]
            rows = values.pop(entry.value, [])
            elsewhere = [key for key in rows if DATASETS[key].collection != entry.collection]
            if entry.members or elsewhere:
                values[entry.value] = [*elsewhere, *entry.members]


def _reasons(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
    return str(error)


DATASETS: Registry[DatasetCard] = Registry("data set", _read)
