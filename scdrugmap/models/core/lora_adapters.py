"""LoRA on an encoder's linears, by peft: put in, trained, kept in peft's own form, and taken out without a trace.

The linears are those that the card names (`lora_targets`); all else of the network is frozen. An encoder is shared by
many experiments, so adapters live in it for the length of a `with` only.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models.card import ModelCard
from scdrugmap.models.core.four_bit import as_installed
from scdrugmap.models.core.seeds import seeded

with as_installed():  # peft imports bitsandbytes where that is installed
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

_WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's names


@dataclass(frozen=True, eq=False)
class Adapters:
    """What peft needs to adapt a network; without `state` they are new: A drawn at random, B zero."""

    config: LoraConfig
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)  # by peft's names, on the CPU

    @classmethod
    def new(cls, card: ModelCard, *, r: int = 8, alpha: int = 8, dropout: float = 0.05) -> Adapters:
        """Describe adapters of rank `r` for a model; raises `InvalidInput` for one that names no linears."""
        if not card.lora_targets:
            message = f"{card.title} has no linears that LoRA could adapt."
            raise InvalidInput(message, "Use strategy 'freeze', or a model whose card has lora_targets.")
        targets = list(card.lora_targets)
        return cls(LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, bias="none"))

    @classmethod
    def load(cls, folder: Path) -> Adapters:
        """Read what `save` or peft's `save_pretrained` wrote; raises `WeightsInvalid`."""
        for name in (CONFIG, _WEIGHTS):
            if not (folder / name).is_file():
                message = f"'{folder}' holds no adapters: {name} is missing."
                raise WeightsInvalid(message, "Name the folder of one fold, below adapters/<run id>.")
        try:
            return cls(LoraConfig.from_pretrained(str(folder)), load_file(folder / _WEIGHTS))
        except (SafetensorError, ValueError, TypeError) as error:
            message = f"The adapters in '{folder}' cannot be read: {error}"
            raise WeightsInvalid(
                " ".join(message.split()), "Delete the folder and run the experiment again."
            ) from error

    def save(self, network: nn.Module, folder: Path) -> None:
        """Write the adapters of this network in peft's own form: adapter_model.safetensors, adapter_config.json."""
        with adapted(network, self) as model:
            model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's form for a model card, with all its blanks

    def with_state_of(self, model: PeftModel) -> Adapters:
        """Return a copy that holds what the adapters in `model` hold now."""
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        return Adapters(self.config, {name: value.detach().cpu().clone() for name, value in state.items()})


@contextmanager
def adapted(
    network: nn.Module, adapters: Adapters, *, seed: int = 0, checkpointing: bool = False
) -> Iterator[PeftModel]:
    """Put adapters into a network; at the end, whatever happened, it is the network that it was.

    Inside, the adapters alone have gradients, and calling the network itself uses them. `checkpointing` keeps only the
    input of each block for the way back. Modules, flags and modes are put back as they were; random numbers come from
    `seed` and leave the caller's generator be.
    """
    places = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    blocks = [(block, vars(block).get("forward")) for block in _blocks(network, adapters.config) if checkpointing]
    _require_targets(network, adapters.config)
    try:
        with seeded(seed, next(network.parameters()).device):
            model = get_peft_model(network, copy.deepcopy(adapters.config))
        if adapters.state:
            _fill(model, adapters.state)
        for block, _ in blocks:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        yield model
    finally:
        for block, forward in blocks:
            vars(block).pop("forward", None)
            if forward is not None:  # it was compiled
                block.forward = forward
        vars(network).pop("peft_config", None)
        for parent, name, child in places:
            parent.register_module(name, child)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
        for module, mode in modes:
            module.training = mode


def _require_targets(network: nn.Module, config: LoraConfig) -> None:
    linears = {name.rpartition(".")[2] for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    missing = sorted(set(config.target_modules or ()) - linears)
    if missing:
        message = f"The adapters do not fit this network, which has no linear called '{missing[0]}'."
        raise WeightsInvalid(message, "Load the model that they were trained on.")


def _fill(model: PeftModel, state: Mapping[str, torch.Tensor]) -> None:
    """Put kept values into the adapters; every one of them, and no other."""
    ours = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name in sorted(set(ours) | set(state)):
        shapes = [tuple(tensors[name].shape) if name in tensors else None for tensors in (ours, state)]
        if shapes[0] != shapes[1]:
            message = f"The adapters do not fit this network: '{name}' is {shapes[1]} and should be {shapes[0]}."
            raise WeightsInvalid(message, "Load the model and weights that they were trained on.")
    set_peft_model_state_dict(model, dict(state))


def _blocks(network: nn.Module, config: LoraConfig) -> list[nn.Module]:
    """Return the outermost repeated blocks that hold a target."""
    targets, blocks = set(config.target_modules or ()), []
    lists = {name: part for name, part in network.named_modules() if isinstance(part, nn.ModuleList)}
    for name, part in lists.items():
        if any(name.startswith(f"{other}.") for other in lists):
            continue
        for block in part:
            if any(inner.rpartition(".")[2] in targets for inner, _ in block.named_modules()):
                blocks.append(block)
    return blocks
