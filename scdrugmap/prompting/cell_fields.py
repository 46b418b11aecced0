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
    columns = [_told(adata, word, getattr(settings, word)) for word in ABOUT]
    lines = {told: metadata_line(*told) for told in set(zip(*columns, strict=True))}
    told = zip(*columns, strict=True)
    return [CellText(tuple(names), lines[one]) for names, one in zip(genes, told, strict=True)]


def _told(adata: AnnData, word: str, value: str) -> list[str]:
    """Return what is told of each cell about one of drug, cancer type and tissue."""
    if value != OBS:
        return [" ".join(value.split())] * adata.n_obs
    if word not in adata.obs:
        message = f"{word}={OBS} wants a column obs['{word}'], and there is none."
        raise InvalidInput(message, f"Say it yourself (--set {word}=...), or leave it out.")
    values = [" ".join(one.split()) for one in adata.obs[word].astype(str)]
    return ["" if one in _MISSING else one for one in values]
