"""From cells to what a language model is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cell_text import ABOUT, metadata_line, top_genes
from scdrugmap.models.core.cells import Cells
from scdrugmap.prompting.prompt import CellText
from scdrugmap.prompting.settings import OBS, PromptSettings

if TYPE_CHECKING:
    from anndata import AnnData

_MISSING = ("", "nan", "None", "NA", "unknown")


def cell_texts(adata: AnnData, settings: PromptSettings) -> list[CellText]:
    """Return what is told of each cell, in their order.

    Raises `InvalidInput` for z-scores, for a column of obs that is not there, and for an accession of a study in what
    should be told about drug, cancer type or tissue.
    """
    genes = top_genes(Cells.from_anndata(adata), settings.top_k)
    columns = [_field(adata, word, getattr(settings, word)) for word in ABOUT]
    fields = list(zip(*columns, strict=True))
    lines = {values: metadata_line(*values) for values in set(fields)}
    return [CellText(tuple(names), lines[values]) for names, values in zip(genes, fields, strict=True)]


def _field(adata: AnnData, word: str, value: str) -> list[str]:
    """Return what is told of each cell about one of drug, cancer type and tissue."""
    if value != OBS:
        return [" ".join(value.split())] * adata.n_obs
    if word not in adata.obs:
        message = f"{word}={OBS} wants a column obs['{word}'], and there is none."
        raise InvalidInput(message, f"Say it yourself (--set {word}=...), or leave it out.")
    values = [" ".join(value.split()) for value in adata.obs[word].astype(str)]
    return ["" if value in _MISSING else value for value in values]
