"""A text model of transformers, from token ids to one vector a cell. C cells, L tokens, D width of the model.

Only what the embedding needs runs: no head over the vocabulary, no pooler, no image or audio tower, no cache of keys
and values, and no blocks above the chosen layer. No hidden state is stored: the last one is the model's answer, another
is caught as its block gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.pytorch_utils import Conv1D

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.layers import masked_mean

POOLINGS = ("mean", "last")
# Linears of attention as the models of transformers call them; LoRA adapts the first of these that a network has. One
# name alone is a fused query, key and value (of Mamba, the way into the mixer).
TARGETS = (
    ("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("q", "v"), ("query_proj", "value_proj"),
    ("q_b_proj", "kv_b_proj"), ("q_proj", "kv_b_proj"), ("query_key_value",), ("qkv_proj",), ("Wqkv",), ("c_attn",),
    ("in_proj",),
)  # fmt: skip
# Names that configurations give to the number of tokens that can be placed.
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "context_length", "seq_length")
UNBOUNDED = 2**20  # tokens, where a network counts distances or states alone


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
        whole = AutoModel.from_config(_described(config.transformers)) if model is None else model
        self.model: Any = _text_part(whole)
        self.is_loaded_in_4bit = bool(getattr(whole, "is_loaded_in_4bit", False))  # peft asks for it by this name
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = nn.Identity()  # some call it unasked
        _linear(self.model)
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
        """The model's repeated layers, whatever it calls them; none where one block is run again and again."""
        count = self.model.config.num_hidden_layers
        lists = (part for part in self.model.modules() if isinstance(part, nn.ModuleList) and len(part) == count)
        return next(lists, nn.ModuleList())

    @property
    def positions(self) -> int:
        """Tokens that the network can place.

        Fewer than its table where that begins behind the padding index (RoBERTa), and fewer than its configuration
        says where the angles of longer texts would follow the longest text of a batch (longrope).
        """
        config = self.model.config
        limits = [length for name in LENGTHS if (length := getattr(config, name, None)) and length > 0][:1]
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get("original_max_position_embeddings") or config.original_max_position_embeddings)
        tables = (part for name, part in self.model.named_modules() if "position" in name.rpartition(".")[2])
        for table in tables:
            if isinstance(table, nn.Embedding) and table.padding_idx is not None:
                limits.append(table.num_embeddings - table.padding_idx - 1)
        return min(limits, default=UNBOUNDED)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the linears that LoRA adapts, nothing where none of the known ones is there."""
        names = {name.rpartition(".")[2] for name, part in self.named_modules() if isinstance(part, nn.Linear)}
        return next((some for some in TARGETS if set(some) <= names), ())

    def forward(self, ids: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Token ids (C, L), mask (C, L) True on tokens, positions (C, L) where they are not 0, 1, ...; -> (C, D)."""
        given = {} if positions is None else {"position_ids": positions}
        seen = None if mask is None else mask.long()
        answer = self.model(input_ids=ids.long(), attention_mask=seen, **given).last_hidden_state  # (C, L, D)
        hidden = answer if self._caught is None else self._states(ids)
        mask = None if mask is None else mask.to(hidden.device)  # the last of the devices that share the model
        return self._pool(hidden, mask).to(ids.device)

    def _pool(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Pool hidden states (C, L, D) over the tokens, (C, L) True on them; -> (C, D) float32."""
        if self.pooling == "mean":
            return masked_mean(hidden.float(), mask)
        if mask is None:
            return hidden[:, -1].float()
        last = mask.shape[1] - 1 - mask.flip(1).to(torch.int64).argmax(dim=1)  # (C,)
        return hidden[torch.arange(len(last), device=last.device), last].float()

    def tried(self, device: torch.device, precision: str) -> bool:
        """Run it on a few tokens: set `dim` to the width that comes out, and tell whether padding changes nothing.

        It does where tokens are convolved or mixed without a mask. Raises `InvalidInput` for a `layer` whose blocks do
        not give hidden states (C, L, D).
        """
        pad = getattr(self.model.config, "pad_token_id", None)
        ids = torch.tensor([[row for row in range(1, 11) if row != pad]], device=device)  # words of any vocabulary
        short, text = 4, ids.shape[1]
        pair = torch.cat([ids, ids.where(torch.arange(text, device=device) < short, 0)])  # (2, L)
        mask = torch.arange(text, device=device) < torch.tensor([[text], [short]], device=device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            alone, beside = self(ids[:, :short])[0], self(pair, mask)[1]
        self.dim = len(alone)
        rounding = 1e-3 if precision == "float32" else 0.05
        return bool((alone - beside).abs().max() <= rounding * alone.abs().max())

    def _stop_at(self, layer: int) -> None:
        """Leave out the blocks above `layer` and catch what that gives; raises `InvalidInput`."""
        count = int(self.model.config.num_hidden_layers)
        if layer == -1:
            return
        if isinstance(layer, bool) or not isinstance(layer, int) or not 1 <= layer <= count:
            message = f"layer={layer!r} is not one of the model's {count} blocks."
            raise InvalidInput(message, f"Give a number from 1 to {count}, or -1 for the last after the final norm.")
        blocks = self.blocks
        if not blocks:
            raise _no_layer(self.model, layer)
        del blocks[layer:]
        self.model.config.num_hidden_layers = layer
        blocks[-1].register_forward_hook(self._catch)

    def _catch(self, block: nn.Module, given: Any, answer: Any) -> None:
        self._caught = answer[0] if isinstance(answer, tuple) else answer

    def _states(self, ids: Tensor) -> Tensor:
        """Give what was caught, (C, L, D), without what a network pads on its own; raises `InvalidInput`."""
        hidden, self._caught = self._caught, None
        if hidden is None or hidden.dim() != 3 or len(hidden) != len(ids) or hidden.shape[1] < ids.shape[1]:
            raise _no_layer(self.model, self.model.config.num_hidden_layers)
        return hidden[:, : ids.shape[1]]


def _no_layer(model: Any, layer: int) -> InvalidInput:
    message = f"layer={layer} cannot be read from a model of type '{model.config.model_type}', whose blocks differ."
    return InvalidInput(message, "Leave it out: the last hidden state is read.")


def _text_part(model: Any) -> Any:
    """Give the text model of one that also sees or hears."""
    return model if model.config.get_text_config() is model.config else model.get_decoder()


def _linear(model: nn.Module) -> None:
    """Put plain linears, for which LoRA looks, in the place of GPT-2's transposed ones, over the same memory."""
    for part in list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, Conv1D):
                plain = nn.Linear(child.nx, child.nf, device="meta")
                plain.weight, plain.bias = nn.Parameter(child.weight.T), child.bias
                part.register_module(name, plain)


def _described(values: Mapping[str, Any]) -> Any:
    return AutoConfig.for_model(**dict(values))
