"""Baselines: encoders that are fitted to cells and have no published weights."""

from __future__ import annotations

from scdrugmap.errors import InvalidInput
from scdrugmap.models.checkpoints.load import assemble, code
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.encoder import Encoder


def refit(encoder: Encoder, cells: Cells) -> Encoder:
    """Fit a baseline anew; its hash is over what was fitted. Raises `InvalidInput` for a model with fixed weights."""
    if not encoder.card.fitted:
        message = f"{encoder.card.title} has published weights and is not fitted to data."
        raise InvalidInput(message, "Use hvg or hvg-pca, or train a head on its embeddings.")
    checkpoint = code(encoder.card, "fit").fit(cells, encoder.settings)
    return assemble(
        encoder.card, checkpoint, checkpoint.content_hash(), encoder.settings, encoder.device, encoder.precision
    )
