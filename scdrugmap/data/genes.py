"""Gene names: what a matrix calls its genes -> current HGNC symbol and Ensembl id.

The table is package data (`genes.tsv.gz`, built by `scripts/build_gene_table.py`, which names its sources and their
terms). It holds the genes of GENCODE 48 and of HGNC, their previous symbols and aliases, and mouse orthologs.
"""

from __future__ import annotations

import functools
import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.settings import PACKAGE

Organism = Literal["auto", "human", "mouse"]
HOW = ("symbol", "ensembl", "previous", "mouse", "none")

_ENSEMBL = re.compile(r"(?<![A-Z0-9])ENS(?:MUS)?G\d{11}(?!\d)")
_GENOME_PREFIX = re.compile(r"^(?:GRCh3[78]|hg19|hg38|GRCm3[89]|mm10|mm39)_+", re.IGNORECASE)
_DECORATED = re.compile(r"^([^|;\s]+)(?:[|;]|\s+\().*$")  # "TP53|7157", "TP53 (7157)"
_UNIQUE_SUFFIX = re.compile(r"^(.+)[-.]\d{1,2}$")  # what anndata and R append to repeated names
_MOUSE_STYLE = re.compile(r"^(?:[A-Z][a-z0-9]*[a-z][a-zA-Z0-9.-]*|mt-[A-Z][a-z0-9]+)$")

Hit = tuple[str, str, str]  # symbol, Ensembl id or "", how
_NO_HIT: Hit = ("", "", "none")


@dataclass(frozen=True)
class GeneTable:
    """The table as look-ups; every value is a current human symbol unless it says otherwise."""

    source: str
    ensembl_of: Mapping[str, str]  # symbol -> Ensembl id, "" where the symbol has none or stands for a family
    symbol_of: Mapping[str, str]  # human Ensembl id (retired ones too) -> symbol
    previous: Mapping[str, str]  # previous symbol or alias -> symbol
    folded: Mapping[str, str]  # upper-cased symbol -> symbol, where they differ: C1ORF50 -> C1orf50
    mouse: Mapping[str, str]  # mouse symbol or mouse Ensembl id -> symbol

    def __len__(self) -> int:
        """Count the symbols."""
        return len(self.ensembl_of)


@dataclass(frozen=True)
class GeneMatch:
    """What each name of a matrix is, in the order of the names; all arrays have shape (n_names,), dtype object."""

    name: np.ndarray  # as given
    symbol: np.ndarray  # current HGNC symbol, the Ensembl id of a gene that has no symbol, "" where unknown
    ensembl_id: np.ndarray  # without version, "" where unknown
    how: np.ndarray  # one of HOW
    organism: Literal["human", "mouse", "unknown"]  # whose names these mostly are

    @property
    def known(self) -> np.ndarray:
        """Mask of the names that were recognised, shape (n_names,), bool."""
        return np.asarray(self.how != "none", dtype=bool)

    @property
    def n_known(self) -> int:
        """Number of names that were recognised."""
        return int(self.known.sum())

    @property
    def var_names(self) -> np.ndarray:
        """Symbol where known, else the name as given; not unique where several names mean one gene."""
        return np.where(self.known, self.symbol, self.name)

    def counts(self) -> dict[str, int]:
        """Names by how they were recognised, in the order of `HOW`."""
        counts = Counter(self.how.tolist())
        return {how: counts[how] for how in HOW}


@functools.cache
def gene_table() -> GeneTable:
    """Return the table of the package; read on the first call (some 0.2 s), kept afterwards."""
    text = gzip.decompress((PACKAGE / "data" / "genes.tsv.gz").read_bytes()).decode("utf-8")
    source, _, *lines = text.splitlines()
    ensembl_of: dict[str, str] = {}
    symbol_of: dict[str, str] = {}
    previous: dict[str, str] = {}
    aliases: dict[str, str] = {}
    mouse: dict[str, str] = {}
    for line in lines:
        ensembl, symbol, old, also, retired, mouse_ids, mouse_symbols = line.split("\t")
        ensembl_of.setdefault(symbol, ensembl)
        _enter(symbol_of, (ensembl, *retired.split("|")), symbol)
        _enter(previous, old.split("|"), symbol)
        _enter(aliases, also.split("|"), symbol)
        _enter(mouse, (*mouse_ids.split("|"), *mouse_symbols.split("|")), symbol)
    folded = {symbol.upper(): symbol for symbol in ensembl_of if symbol.upper() != symbol}
    return GeneTable(source.lstrip("# "), ensembl_of, symbol_of, aliases | previous, folded, mouse)


def harmonise(
    names: Iterable[str], ensembl_ids: Iterable[str] | None = None, *, organism: Organism = "auto"
) -> GeneMatch:
    """Recognise the genes of a matrix, whatever it calls them.

    Understood are current symbols (in any human spelling: C1ORF50, HLA.A, TP53.1 beside TP53, GRCh38_TP53), Ensembl
    ids with or without version, `_PAR_Y` or a symbol attached, previous symbols and unambiguous aliases (FAM64A,
    SEPT2, also as the spreadsheet date 2-Sep), and mouse symbols or ids, by ortholog or else by upper-casing.
    Mouse names count only in a matrix whose names are mostly mouse's: in a human matrix (a xenograft's host cells)
    they stay unknown, so that the two species are never added up.

    Parameters
    ----------
    names
        Names of the genes, shape (n_names,); repeated names are fine.
    ensembl_ids
        Ensembl id of each name where the file has them (10x files do); a known id goes before the name. Where more
        than half of them are ids of no gene, they are made up or of another kind, and the names alone count.
    organism
        "auto" decides by the names; "human" ignores mouse names, "mouse" reads them in any matrix.

    Raises
    ------
    InvalidInput
        `ensembl_ids` is not as long as `names`.
    """
    given = [str(name) for name in names]
    ids = [""] * len(given) if ensembl_ids is None else [str(name) for name in ensembl_ids]
    if len(ids) != len(given):
        message = f"{len(ids)} Ensembl ids were given for {len(given)} gene names."
        raise InvalidInput(message, "Pass one id for each name ('' where there is none), or none at all.")
    table = gene_table()
    decided = _organism(table, given, ids)
    look = functools.partial(_look_up, table, mouse=organism == "mouse" or (organism, decided) == ("auto", "mouse"))
    by_id = _by_ids(table, look, ids)
    hits = [_of_both(look, hit, name) for hit, name in zip(by_id, given, strict=True)]
    hits = _resolve_repeats(look, given, hits)
    symbol, ensembl, how = (_objects([hit[part] for hit in hits]) for part in range(3))
    return GeneMatch(_objects(given), symbol, ensembl, how, decided)


def _organism(table: GeneTable, names: list[str], ids: list[str]) -> Literal["human", "mouse", "unknown"]:
    """Whose names these mostly are; names of both ("C3") count for both, ties are human."""
    plain = [_GENOME_PREFIX.sub("", name) for name in (*names, *ids)]
    stems = [name.split(".")[0] if name.startswith("ENS") else name for name in plain]
    human = sum(name in table.ensembl_of or name in table.symbol_of or name in table.previous for name in stems)
    mouse = sum(name in table.mouse or _is_mouse_name(table, name) for name in stems)
    if human == mouse == 0:
        return "unknown"
    return "mouse" if mouse > human else "human"


def _is_mouse_name(table: GeneTable, name: str) -> bool:
    return _MOUSE_STYLE.match(name) is not None and name.upper() in table.ensembl_of and name not in table.ensembl_of


Look = Callable[[str], Hit]


def _by_ids(table: GeneTable, look: Look, ids: list[str]) -> list[Hit]:
    """Look up each id, "" is none; ids of which most are unknown are not trusted where one is known by chance."""
    hits = [look(identifier) if identifier else _NO_HIT for identifier in ids]
    strange = sum(
        bool(name) and hit[2] == "none" and name not in table.mouse for name, hit in zip(ids, hits, strict=True)
    )
    return [_NO_HIT] * len(ids) if 2 * strange > sum(map(bool, ids)) else hits


def _of_both(look: Look, hit: Hit, name: str) -> Hit:
    """Take what the id gave, else look up the name; the way is still "symbol" where id and name agree."""
    if hit[2] == "none":
        return look(name)
    return (hit[0], hit[1], "symbol") if hit[0] == name else hit


def _look_up(table: GeneTable, name: str, *, mouse: bool) -> Hit:
    """Recognise one name by itself."""
    if name in table.ensembl_of and not (mouse and name in table.mouse):
        return name, table.ensembl_of[name] or (name if name in table.symbol_of else ""), _how_named(name)
    stem = name.partition(".")[0]  # the common case of an id, before its spellings are tried one by one
    if stem in table.symbol_of:
        return table.symbol_of[stem], stem, "ensembl"
    for spelling in _spellings(name):
        if mouse and (spelling in table.mouse or _is_mouse_name(table, spelling)):
            symbol = table.mouse.get(spelling) or spelling.upper()
            return symbol, table.ensembl_of[symbol], "mouse"
        if spelling in table.symbol_of:
            return table.symbol_of[spelling], spelling, "ensembl"
        symbol = spelling if spelling in table.ensembl_of else table.folded.get(spelling, "")
        if symbol:
            return symbol, table.ensembl_of[symbol], "symbol"
        if spelling in table.previous:
            symbol = table.previous[spelling]
            return symbol, table.ensembl_of[symbol], "previous"
    return _NO_HIT


def _how_named(name: str) -> str:
    return "ensembl" if _ENSEMBL.fullmatch(name) else "symbol"


def _spellings(name: str) -> list[str]:
    """Spellings to try in turn: an Ensembl id inside the name, the name, without genome or number, dots as hyphens."""
    spellings = [*_ENSEMBL.findall(name)[:1], name]
    bare = _DECORATED.sub(r"\1", _GENOME_PREFIX.sub("", name.strip()))
    if bare != name:
        spellings.append(bare)
    if "." in bare:
        spellings.append(bare.replace(".", "-"))
    return spellings


def _resolve_repeats(look: Look, names: Sequence[str], hits: list[Hit]) -> list[Hit]:
    """Recognise "TBCE-1" as TBCE where the matrix also holds TBCE: the suffix was added to make names unique."""
    present = set(names)
    for index, (name, hit) in enumerate(zip(names, hits, strict=True)):
        if hit[2] == "none":
            numbered = _UNIQUE_SUFFIX.match(name)
            if numbered and numbered[1] in present:
                hits[index] = look(numbered[1])
    return hits


def _enter(table: dict[str, str], names: Iterable[str], symbol: str) -> None:
    for name in names:
        if name:
            table.setdefault(name, symbol)


def _objects(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)
