"""What a plan and a worker need of a data set without its cells: name, content, groups, and where it lies.

Outlines of files are kept in the cache, so that 60 data sets are planned in a second and never stand in memory
together. Cells that were given in memory are written once to the cache where other processes need them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata

from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.data.load import COLUMNS
from scdrugmap.evaluation.cells import cell_table, labelled_cells
from scdrugmap.evaluation.cells.labelled_cells import FACET_COLUMNS, LabelledDataset, by_name, load_labelled
from scdrugmap.files import replacing, write_once
from scdrugmap.settings import PACKAGE, Settings

if TYPE_CHECKING:
    from anndata import AnnData


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

    def facet(self, facet: str) -> str:
        """Return its value of a facet, as `Source.facet` does."""
        return self.facets[facet]

    @classmethod
    def of(cls, source: LabelledDataset) -> DatasetSummary:
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
    def of_card(cls, key: str) -> DatasetSummary:
        """Say what the catalogue knows of a data set whose cells need not be here; `content` is empty."""
        card = DATASETS[key]
        facts = {"tissue": card.tissue, "cancer_type": card.cancer_type, "drug_type": card.drug_type}
        facets = facts | {"regimen": card.regimen or "unknown"}
        return cls(key, key, "", facets, (card.accession,), card.collection, card.cells or 0)


def summaries(datasets: Iterable[str | Path | AnnData], settings: Settings) -> list[DatasetSummary]:
    """Return the outlines of catalogue keys, paths or AnnData, ordered by name; raises what `load_labelled` raises."""
    return by_name([outline for origin in datasets for outline in _summaries(origin, settings)])


def _summaries(origin: str | Path | AnnData, settings: Settings) -> Iterator[DatasetSummary]:
    """Yield the outlines of one origin: from the cache where its file has been read before."""
    note = _note(origin, settings)
    if note is None or not note.is_file():
        made = [DatasetSummary.of(source) for source in load_labelled([origin], settings)]
        if note is not None:
            plain = [dataclasses.asdict(dataclasses.replace(one, origin=None)) for one in made]
            write_once(note, json.dumps(plain, indent=1) + "\n")
        yield from made
        return
    for plain in json.loads(note.read_text()):
        yield DatasetSummary(
            **plain | {"origin": origin} | {name: tuple(plain[name]) for name in ("studies", "classes")}
        )


def _note(origin: str | Path | AnnData, settings: Settings) -> Path | None:
    """Return where the outline of a file is kept: by place, size and time of the file, card, and code that reads it."""
    if not isinstance(origin, str | Path):
        return None
    keyed = isinstance(origin, str) and origin in DATASETS
    path = settings.data / f"{origin}.h5ad" if keyed else Path(origin)
    if not path.is_file():
        return None
    status = path.stat()
    card = DATASETS[str(origin)].model_dump_json() if keyed else ""
    parts = (str(path.resolve()), str(status.st_size), str(status.st_mtime_ns), card, _code())
    return settings.cache / "outlines" / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.json"


@functools.cache
def _code() -> str:
    """Return a hash of the code that reads data sets: another reading may give other contents."""
    digest = hashlib.sha256()
    own = (Path(module) for module in (str(cell_table.__file__), str(labelled_cells.__file__), __file__))
    for path in (*sorted((PACKAGE / "data").glob("*.py")), *own):
        digest.update(path.read_bytes())
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
