"""What may be chosen of a LoRA training, in one frozen record; `Experiment.options` sets its fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.evaluation.experiment import Options

if TYPE_CHECKING:
    import torch  # a plan checks options without it

_PRECISIONS = ("auto", "float32", "bfloat16")
MICRO_TOKENS = {"cpu": 2_048, "cuda": 32_768}  # padded positions that go forward and back at once: memory, not speed
_LEAST = {"r": 1, "alpha": 1, "batch_size": 1, "steps": 0, "least_steps": 1, "most_steps": 1, "checks": 1} | {
    "patience": 0,
    "hidden": 1,
    "micro_tokens": 0,
}


@dataclass(frozen=True)
class LoraOptions:
    """Options and their defaults. r, alpha, dropout, lr, epochs and the head are the paper's (arXiv:2505.05612).

    Every model gets the same optimiser steps on the same number of cells, however many of them its memory holds at
    once; the published code gave them batches of 1 to 256 cells, so that some had 256 times the steps of others. The
    steps are those of `epochs` passes, at least `least_steps` (few cells: a head that starts at random must move) and
    at most `most_steps`; `steps` replaces all that.
    """

    r: int = 8
    alpha: int = 8
    dropout: float = 0.05
    lr: float = 1e-4
    batch_size: int = 32  # cells of an optimiser step, in as many micro-batches as it takes
    epochs: float = 3
    steps: int = 0  # optimiser steps; 0: those of `epochs`
    least_steps: int = 60
    most_steps: int = 20_000
    checks: int = 6  # times that the validation part is looked at
    patience: int = 3  # checks without a lower validation loss that end the training early; 0: never
    hidden: int = 512  # width of the head
    precision: str = "auto"  # bfloat16 autocast on CUDA, float32 elsewhere
    gradient_checkpointing: bool = False  # a third more time for the memory of one block
    micro_tokens: int = 0  # padded positions of a micro-batch; 0: MICRO_TOKENS

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                self._refuse(name, f"Give a whole number of at least {least}.")
        for name in ("lr", "epochs"):
            if not _number(getattr(self, name)) or getattr(self, name) <= 0:
                self._refuse(name, "Give a number above 0.")
        if not _number(self.dropout) or not 0 <= self.dropout < 1:
            self._refuse("dropout", "Give a share from 0 to below 1.")
        if self.precision not in _PRECISIONS:
            self._refuse("precision", f"Give one of {', '.join(_PRECISIONS)}.")
        if not isinstance(self.gradient_checkpointing, bool):
            self._refuse("gradient_checkpointing", "Give true or false.")

    @classmethod
    def from_options(cls, options: Options) -> LoraOptions:
        """Lay an experiment's options over the defaults; raises `UnknownName` or `InvalidInput`."""
        known = [field.name for field in fields(cls)]
        for name, _ in options:
            if name not in known:
                message = f"The strategy 'lora' has no option '{name}'."
                raise UnknownName(message, f"It has: {', '.join(known)}.")
        chosen: dict[str, Any] = dict(options)
        return cls(**chosen)

    def budget(self, n_train: int) -> int:
        """Optimiser steps for that many training cells, the same for every model."""
        if self.steps:
            return self.steps
        return min(max(math.ceil(self.epochs * n_train / self.batch_size), self.least_steps), self.most_steps)

    def checked(self, budget: int) -> frozenset[int]:
        """Return the steps, counted from 1, after which the validation part is looked at; the last is one of them."""
        return frozenset(math.ceil(budget * check / self.checks) for check in range(1, self.checks + 1))

    def precision_on(self, device: torch.device) -> str:
        """Return "float32" or "bfloat16"."""
        if self.precision != "auto" or device.type != "cuda":
            return "float32" if self.precision == "auto" else self.precision
        from torch.cuda import is_bf16_supported

        return "bfloat16" if is_bf16_supported() else "float32"

    def micro_tokens_on(self, device: torch.device) -> int:
        """Return the padded positions of a micro-batch."""
        return self.micro_tokens or MICRO_TOKENS[device.type]

    def _refuse(self, name: str, remedy: str) -> None:
        message = f"{name}={getattr(self, name)!r} cannot be used to train adapters."
        raise InvalidInput(message, remedy)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
