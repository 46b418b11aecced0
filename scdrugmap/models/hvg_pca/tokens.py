"""The same rows of chosen genes as `hvg`'s."""

from __future__ import annotations

from scdrugmap.models.hvg.tokens import Tokenizer

__all__ = ["Tokenizer"]
