"""The loop that upstream's scripts run, over our networks: batches of a fixed size in the given order, every cell
padded to the maximum length, attention that writes its scores out, all tokens of the last block.

It shares our arithmetic, weights and tokens, so that the ratio is of the engine alone; upstream's own code is not run.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scdrugmap.models.core import performer
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.core.layers import PostNormBlock
from scdrugmap.models.core.tokenizer import Batch, Tokens

SCORES = 2**29  # bytes that the scores of one layer may take: a larger batch would swap
LARGEST = 16  # cells a batch


def maximum_length(encoder: Encoder, tokens: Tokens) -> int:
    """Length to which upstream pads: the model's own limit or, where it has none, the longest cell."""
    tokenizer = encoder.tokenizer
    limit = getattr(tokenizer, "max_length", None) or tokenizer.vocabulary.get("positions")
    return int(limit or tokens.lengths.max())


def batch_size(encoder: Encoder, width: int) -> int:
    """Cells of a plain batch: `LARGEST`, or as many as keep the scores of one layer below `SCORES` bytes."""
    heads = max((getattr(part, "heads", 1) for part in encoder.network.modules()), default=1)
    features = [part.projection.shape[0] for part in encoder.network.modules() if hasattr(part, "projection")]
    return max(1, min(LARGEST, SCORES // (4 * heads * width * (features[0] if features else width))))


def plain(encoder: Encoder, tokens: Tokens, width: int | None, size: int) -> np.ndarray:
    """Embed in the given order, `size` cells at a time, padded to `width` or, without it, to the longest of a batch.

    Gives (C, dim) float32: what the engine gives, up to rounding. A model of contexts takes each whole, as upstream.
    """
    out = np.empty((len(tokens), encoder.dim), dtype=np.float32)
    batches = [np.arange(start, min(start + size, len(tokens))) for start in range(0, len(tokens), size)]
    if encoder.card.context:
        batches = encoder.tokenizer.plan(tokens, None, 0)
    with as_upstream(), torch.inference_mode():
        for rows in batches:
            batch = encoder.tokenizer.collate(tokens, rows)
            if width is not None and not encoder.card.context:
                batch = padded(encoder, batch, width)
            out[rows] = encoder.forward(batch).float().cpu().numpy()
    return out


def padded(encoder: Encoder, batch: Batch, width: int) -> Batch:
    """Pad all (B, L) arrays of a batch to `width`; every row stands for itself alone."""
    tokenizer = encoder.tokenizer
    fills = {
        "ids": tokenizer.pad_id,
        "values": tokenizer.pad_value,
        "mask": False,
        "pooled": False,
        "weight": 1.0,
        "positions": 0,
    }
    fills["genes"] = getattr(tokenizer, "pad_gene", 0)
    n_cells, longest = batch["ids"].shape
    if longest >= width:
        return batch
    takes_mask = "mask" in inspect.signature(encoder.network.forward).parameters
    if takes_mask and "mask" not in batch:
        batch = batch | {"mask": np.ones((n_cells, longest), dtype=bool)}
    if "weight" in batch:
        batch = batch | {"weight": np.ones((n_cells, longest), dtype=np.float32)}
    more = ((0, 0), (0, width - longest))
    return {name: np.pad(array, more, constant_values=fills[name]) for name, array in batch.items()}


def written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as a matrix of scores, its softmax and a product: torch's own, without a fused kernel; no dropout."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        scores = scores.masked_fill(
            torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1).to(scores.device), -torch.inf
        )
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(dim=-1) @ value


def _whole_block(self: PostNormBlock, x: Tensor, mask: Tensor | None = None) -> Tensor:
    return self(x, mask)[:, 0]  # type: ignore[no-any-return]


@contextmanager
def as_upstream() -> Iterator[None]:
    """Inside, attention is written out, a last block works on all tokens and a Performer on all positions at once."""
    whole = dict.fromkeys(performer.CHUNK_ROWS, 2**40)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", written_out))
        stack.enter_context(mock.patch.object(PostNormBlock, "first", _whole_block))
        stack.enter_context(mock.patch.dict(performer.CHUNK_ROWS, whole))
        yield
