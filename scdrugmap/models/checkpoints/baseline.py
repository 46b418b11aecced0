"""Baselines: encoders that are fitted to cells and have no published weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdrugmap.errors import InvalidInput
from scdrugmap.models.checkpoints.load import assemble, code
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.encoder import Encoder

if TYPE_CHECKING:
    from anndata import AnnData


def refit(encoder: Encoder, adata: AnnData) -> Encoder:
    """Return a new encoder of the same kind whose genes and loadings are fitted to these training cells.

    Its `weights_hash` is over what was fitted. Raises `InvalidInput` for a model with published weights: only baselines
    (`card.fitted`) are fitted.
    """
    if not encoder.card.fitted:
        message = f"{encoder.card.title} has published weights and is not fitted to data."
        raise InvalidInput(message, "Use hvg or hvg-pca, or train a head on its embeddings.")
    checkpoint = code(encoder.card, "fit").fit(Cells.from_anndata(adata), encoder.settings)
    return assemble(
        encoder.card, checkpoint, checkpoint.content_hash(), encoder.settings, encoder.device, encoder.precision
    )
