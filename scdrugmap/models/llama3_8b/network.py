"""A text model of transformers, from token ids to one vector a cell. C cells, L tokens, D width of the model.

Only what the embedding needs runs: no head over the vocabulary, no pooler, no cache of keys and values, and no blocks
above the chosen layer. No hidden state is stored: the last one is the model's answer, another is caught as its block
gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from scdrugmap.errors import InvalidInput
from scdrugmap.models.layers import masked_mean

POOLINGS = ("mean", "last")


@dataclass(frozen=True)
class Config:
    """A configuration of transformers, as its config.json has it."""

    transformers: Mapping[str, Any]


class Network(nn.Module):
    """Settings: `layer` (-1, the last, after the final norm; or the output of block 1, 2, ...) and `pooling`.

    `pooling` is the "mean" over all tokens of the text, special ones included, as upstream's; or its "last" token.
    """

    def __init__(self, config: Config, settings: Mapping[str, Any], model: Any = None) -> None:
        super().__init__()
        self.model: Any = AutoModel.from_config(_described(config.transformers)) if model is None else model
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None
        self.model.config.use_cache = False
        self.dim = int(self.model.config.hidden_size)
        self.pooling = settings["pooling"]
        if self.pooling not in POOLINGS:
            message = f"pooling='{self.pooling}' is not known."
            raise InvalidInput(message, f"Give one of {', '.join(POOLINGS)}.")
        self._caught: Tensor | None = None
        self._stop_at(settings["layer"])

    @property
    def blocks(self) -> nn.ModuleList:
        """The model's repeated layers, whatever it calls them."""
        count = self.model.config.num_hidden_layers
        return next(part for part in self.model.modules() if isinstance(part, nn.ModuleList) and len(part) == count)

    def forward(self, ids: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Token ids (C, L), mask (C, L) True on tokens, positions (C, L) where they are not 0, 1, ...; -> (C, D)."""
        given = {} if positions is None else {"position_ids": positions}
        seen = None if mask is None else mask.long()
        answer = self.model(input_ids=ids.long(), attention_mask=seen, **given).last_hidden_state  # (C, L, D)
        hidden = answer if self._caught is None else self._caught
        self._caught = None
        if self.pooling == "mean":
            return masked_mean(hidden.float(), mask)
        if mask is None:
            return hidden[:, -1].float()
        last = mask.shape[1] - 1 - mask.flip(1).to(torch.int64).argmax(dim=1)  # (C,)
        return hidden[torch.arange(len(last), device=last.device), last].float()

    def _stop_at(self, layer: int) -> None:
        """Leave out the blocks above `layer` and catch what that gives; raises `InvalidInput`."""
        count = int(self.model.config.num_hidden_layers)
        if layer == -1:
            return
        if not isinstance(layer, int) or not 1 <= layer <= count:
            message = f"layer={layer!r} is not one of the model's {count} blocks."
            raise InvalidInput(message, f"Give a number from 1 to {count}, or -1 for the last after the final norm.")
        del self.blocks[layer:]
        self.model.config.num_hidden_layers = layer
        self.blocks[-1].register_forward_hook(self._catch)

    def _catch(self, block: nn.Module, given: Any, answer: Any) -> None:
        self._caught = answer[0] if isinstance(answer, tuple) else answer


def _described(values: Mapping[str, Any]) -> Any:
    return AutoConfig.for_model(**dict(values))
