"""What a plan and a worker need of a data set without its cells: name, content, groups, and where it lies.

Summaries of files are kept in the cache, so that 60 data sets are planned in a second and never stand in memory
together. Where a file had to be read for its summary, its cells wait for the first who works on them in this process,
as long as they are few. Cells that were given in memory are written once to the cache where other processes need them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import scipy.sparse as sp

from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.data.load import COLUMNS
from scdrugmap.evaluation.cells.labelled_cells import FACET_COLUMNS, LabelledDataset, Loadable, by_name, load_labelled
from scdrugmap.files import replacing, write_once
from scdrugmap.settings import PACKAGE, Settings

if TYPE_CHECKING:
    from anndata import AnnData

LOADED_BYTES = 2**30  # of expression that waits in memory for who works on it; more is read again


class LoadedCells:
    """The data sets of one origin, loaded for their summaries; whoever reads them first has them without loading.

    They are given once: they are in memory no longer than if they had been loaded by who works on them.
    """

    def __init__(
        self, origin: str | Path | AnnData, sources: Iterable[LabelledDataset], settings: Settings, note: Path | None
    ) -> None:
        self.origin, self.settings = origin, settings
        self._sources = tuple(sources)
        self._note = note  # of the file as it was before it was read

    @property
    def n_bytes(self) -> int:
        """Size of the expression in memory."""
        matrices = [source.adata.X for source in self._sources]
        return sum(x.data.nbytes + (x.indices.nbytes if sp.issparse(x) else 0) for x in matrices)

    def read(self) -> Loadable:
        """Return the loaded data sets or, the second time and where the file has changed, what they are loaded from."""
        sources, self._sources = self._sources, ()
        return sources if sources and _note(self.origin, self.settings) == self._note else self.origin


@dataclass(frozen=True)
class StoredCells:
    """Cells that were given in memory and lie in the cache for other processes."""

    path: Path

    def read(self) -> AnnData:
        """Return the cells as they were given; the file is ours, and its name says what is in it."""
        return anndata.read_h5ad(self.path)


@dataclass(frozen=True)
class DatasetSummary:
    """One data set; `origin` is what was asked for, a key, a path or an AnnData."""

    name: str
    origin: Any
    content: str
    facets: Mapping[str, str]
    studies: tuple[str, ...]
    collection: str
    n_cells: int
    classes: tuple[str, ...] = ()  # labels that its cells have; empty where nobody has looked
    simulated: bool = False
    loaded: LoadedCells | None = field(default=None, compare=False, repr=False)  # its cells, where they were just read

    def facet(self, facet: str) -> str:
        """Return its value of a facet, as `LabelledDataset.facet` does."""
        return self.facets[facet]

    @classmethod
    def from_dataset(cls, source: LabelledDataset) -> DatasetSummary:
        """Say what is known of loaded cells."""
        obs = source.adata.obs
        return cls(
            name=source.name,
            origin=source.origin,
            content=source.content,
            facets={facet: source.facet(facet) for facet in FACET_COLUMNS},
            studies=tuple(sorted(map(str, obs["study"].unique()))),
            collection="+".join(sorted(map(str, obs["collection"].unique()))),
            n_cells=source.adata.n_obs,
            classes=tuple(sorted(map(str, obs["response"].unique()))),
            simulated=source.simulated,
        )

    @classmethod
    def from_card(cls, key: str) -> DatasetSummary:
        """Say what the catalogue knows of a data set whose cells need not be here; `content` is empty."""
        card = DATASETS[key]
        facts = {"tissue": card.tissue, "cancer_type": card.cancer_type, "drug_type": card.drug_type}
        facets = facts | {"regimen": card.regimen or "unknown"}
        return cls(key, key, "", facets, (card.accession,), card.collection, card.cells or 0)


def summaries(datasets: Iterable[str | Path | AnnData], settings: Settings) -> list[DatasetSummary]:
    """Return the summaries of catalogue keys, paths or AnnData, ordered by name; raises what `load_labelled` raises."""
    known: list[DatasetSummary] = []
    n_bytes = 0
    for origin in datasets:
        made, loaded = _summaries(origin, settings)
        if loaded is not None and n_bytes + loaded.n_bytes <= LOADED_BYTES:
            n_bytes += loaded.n_bytes
            made = [replace(summary, loaded=loaded) for summary in made]
        known += made
    return by_name(known)


def _summaries(origin: str | Path | AnnData, settings: Settings) -> tuple[list[DatasetSummary], LoadedCells | None]:
    """Return the summaries of one origin, from the cache where its file was read before, else with its cells."""
    note = _note(origin, settings)
    if note is not None and note.is_file():
        listed = json.loads(note.read_text())
        tuples = [{name: tuple(plain[name]) for name in ("studies", "classes")} for plain in listed]
        return [DatasetSummary(**plain | more, origin=origin) for plain, more in zip(listed, tuples, strict=True)], None
    sources = load_labelled([origin], settings)
    made = [DatasetSummary.from_dataset(source) for source in sources]
    if note is not None:
        write_once(note, json.dumps([_plain(summary) for summary in made], indent=1) + "\n")
    return made, LoadedCells(origin, sources, settings, note)


def _plain(summary: DatasetSummary) -> dict[str, Any]:
    """Return what is kept of an summary: all but where its cells are had."""
    plain = dataclasses.asdict(replace(summary, origin=None, loaded=None))
    return {name: value for name, value in plain.items() if name not in ("origin", "loaded")}


def _note(origin: str | Path | AnnData, settings: Settings) -> Path | None:
    """Return where the summary of a file is kept: by place, size and time of the file, card, and code that reads it."""
    if not isinstance(origin, str | Path):
        return None
    keyed = isinstance(origin, str) and origin in DATASETS
    path = settings.data / f"{origin}.h5ad" if keyed else Path(origin)
    if not path.is_file():
        return None
    status = path.stat()
    card = DATASETS[str(origin)].model_dump_json() if keyed else ""
    parts = (str(path.resolve()), str(status.st_size), str(status.st_mtime_ns), card, code_hash())
    return settings.cache / "outlines" / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.json"


@functools.cache
def code_hash(package: Path = PACKAGE) -> str:
    """Return a hash of all that decides what reading a file gives: the loader, the catalogue's code, the gene table."""
    folders = (package / "data", package / "evaluation" / "cells")
    files = [package / "data" / "genes.tsv.gz", *(path for folder in folders for path in folder.rglob("*.py"))]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def store(source: LabelledDataset, settings: Settings) -> StoredCells:
    """Write the cells of a data set that was given in memory to the cache, once, and return where they lie."""
    path = settings.cache / "given" / f"{source.content.removeprefix('sha256:')}.h5ad"
    if not path.is_file():
        adata = source.adata
        kept = [name for name in (*COLUMNS, "batch") if name in adata.obs]
        known = {"input": {"value_type": source.value_type}, "simulated": source.simulated}
        bare = anndata.AnnData(adata.X, obs=adata.obs[kept].copy(), var=adata.var.copy(), uns={"scdrugmap": known})
        with replacing(path) as draft:
            bare.write_h5ad(draft)
    return StoredCells(path)
