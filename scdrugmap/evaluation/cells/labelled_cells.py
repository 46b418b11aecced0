"""The labelled cells that experiments work on: one `LabelledDataset` a data set, loaded once, metadata apart."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import numpy as np

from scdrugmap.data.dedupe import cell_hashes, fingerprint
from scdrugmap.data.labels import RESPONSES, SIMULATED
from scdrugmap.data.load import load_dataset
from scdrugmap.errors import InvalidInput, LabelsMissing
from scdrugmap.evaluation.cells.cell_table import CellMetadata, content_of, tabulate
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

ACCEPTED_VALUES = ("counts", "cpm", "log1p", "zscore")
FACET_COLUMNS = {"tissue": "tissue", "cancer_type": "cancer_type", "drug_type": "drug_type", "regimen": "drug"}
LEAST_SHARED_GENES = 200


class HasName(Protocol):
    """What has the name of a data set."""

    @property
    def name(self) -> str:
        """The name."""


Named = TypeVar("Named", bound=HasName)


@dataclass(frozen=True, eq=False)
class LabelledDataset:
    """The labelled cells of one data set. `content` covers expression, names, labels and groups."""

    name: str
    origin: str | Path | AnnData  # what was asked for; several sources may share one
    adata: AnnData
    hashes: np.ndarray  # (n_cells,) content hash of each cell
    fingerprint: str
    content: str
    value_type: str
    simulated: bool = False  # the cells are our simulator's

    def facet(self, facet: str) -> str:
        """Return the values of a facet that its cells have, joined with "+"."""
        column = FACET_COLUMNS[facet]
        values = self.adata.obs[column].astype(str).unique() if column in self.adata.obs else []
        return "+".join(sorted(value for value in values if value not in ("", "nan", "None"))) or "unknown"


Loadable: TypeAlias = "str | Path | AnnData | tuple[LabelledDataset, ...]"  # a tuple: cells that were loaded before


def load_labelled(datasets: Iterable[Loadable], settings: Settings | None = None) -> list[LabelledDataset]:
    """Return the labelled cells of catalogue keys, paths or AnnData; an AnnData of several data sets gives several.

    What was loaded before is taken as it is.
    Raises `LabelsMissing` where a data set has no labelled cell, `InvalidInput` where two have one name.
    """
    return by_name([source for origin in datasets for source in _sources(origin, settings)])


def by_name(datasets: Sequence[Named]) -> list[Named]:
    """Return data sets, or their summaries, ordered by name; raise `InvalidInput` for one name twice and for none."""
    names = [dataset.name for dataset in datasets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"Two of the data sets are called '{twice[0]}'."
        raise InvalidInput(message, "Give each its own name in obs['dataset'], or name it once.")
    if not datasets:
        message = "No data set was named."
        raise InvalidInput(message, "Give a key of the catalogue, a file or an AnnData with obs['response'].")
    return sorted(datasets, key=lambda dataset: dataset.name)


def _sources(origin: Loadable, settings: Settings | None) -> Iterable[LabelledDataset]:
    if isinstance(origin, tuple):
        yield from origin
        return
    adata = load_dataset(origin, settings=settings, accept=ACCEPTED_VALUES)
    labelled = adata.obs["response"].isin(RESPONSES).to_numpy()
    names = adata.obs["dataset"].astype(str).to_numpy()
    marks = adata.uns.get("scdrugmap", {})
    value_type = str(marks.get("input", {}).get("value_type", "counts"))
    for name in np.unique(names):
        cells = adata[labelled & (names == name)].copy()
        if not cells.n_obs:
            message = f"'{name}' has no labelled cell among its {int((names == name).sum())}."
            raise LabelsMissing(message, "Fill obs['response'] with 'sensitive' and 'resistant'.")
        hashes = cell_hashes(cells)
        mark = fingerprint(cells, hashes)
        simulated = bool(marks.get("simulated", False)) or str(name).startswith(SIMULATED)
        yield LabelledDataset(str(name), origin, cells, hashes, mark, content_of(cells, mark), value_type, simulated)


@dataclass(frozen=True, eq=False)
class LabelledData:
    """The cells of one group of data sets, in the order of the table: what all experiments on the group share."""

    sources: tuple[LabelledDataset, ...]
    table: CellMetadata

    @classmethod
    def from_datasets(cls, sources: Sequence[LabelledDataset]) -> LabelledData:
        """Put data sets together; raise `InvalidInput` where their values are of different kinds."""
        kinds = {source.value_type == "zscore" for source in sources}
        if len(kinds) > 1:
            scaled = ", ".join(f"'{source.name}'" for source in sources if source.value_type == "zscore")
            message = f"There are z-scores in {scaled} and none in the others: their values cannot be put together."
            raise InvalidInput(message, "Evaluate sets of z-scores by themselves.")
        hashes = [source.hashes for source in sources]
        table = tabulate([source.adata for source in sources], hashes)
        return cls(tuple(sources), table)

    @property
    def value_type(self) -> str:
        """What the matrices hold, joined with "+" where they differ."""
        return "+".join(sorted({source.value_type for source in self.sources}))

    @functools.cached_property
    def joint(self) -> AnnData:
        """All cells over the genes that every data set has; put together once.

        A gene that one set lacks would tell the sets apart, not the cells. Raises `InvalidInput` for too few.
        """
        import anndata

        if len(self.sources) == 1:
            return self.sources[0].adata
        names = [source.name for source in self.sources]
        joined = anndata.concat([source.adata for source in self.sources], join="inner", keys=names, index_unique=":")
        joined.uns["scdrugmap"] = {"input": {"value_type": self.sources[0].value_type}}
        if joined.n_vars < LEAST_SHARED_GENES:
            message = f"The data sets {', '.join(names)} share {joined.n_vars} genes only."
            raise InvalidInput(
                message, f"A baseline needs {LEAST_SHARED_GENES} shared genes; leave one of the sets out."
            )
        return joined


_last: dict[tuple[str, ...], LabelledData] = {}


def labelled_data(
    contents: tuple[str, ...], datasets: Iterable[Loadable], settings: Settings | None = None
) -> LabelledData:
    """Return the cells of the data sets whose contents these are; the last ones asked for stay in memory.

    Raises `InvalidInput` where a data set is no longer what it was when the experiment was planned.
    """
    if contents not in _last:
        sources = [source for source in load_labelled(datasets, settings) if source.content in contents]
        if tuple(source.content for source in sources) != contents:
            message = "A data set has changed since the experiment was planned."
            raise InvalidInput(message, "Plan the benchmark again.")
        _last.clear()
        _last[contents] = LabelledData.from_datasets(sources)
    return _last[contents]
