"""One LoRA training: adapters and head together, equal steps of equal batches, the step that validation chooses.

A batch of cells goes through the network in micro-batches of the model's own tokenizer, whose gradients add up to the
batch's. Dropout is on while training and off whenever something is measured; the published code never turned it off.

A model whose cells see each other (`card.context`) is trained and used on contexts of `batch_size` cells of one data
set and one side: training cells see training cells, tested cells see those that are tested with them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from anndata import AnnData
from torch import nn

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.strategies.lora.training_options import LoraOptions
from scdrugmap.evaluation.strategies.mlp import MLP
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.core.lora_adapters import Adapters, adapted, seeded
from scdrugmap.models.core.ragged import join, take
from scdrugmap.models.core.tokenizer import Batch, Tokens

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, eq=False)
class TrainingPool:
    """Cells that were tokenized once, in the order of the data sets."""

    encoder: Encoder
    tokens: Tokens
    source: np.ndarray  # (C,) int, which data set a cell is of
    context: int  # cells that see each other, where the model lets them
    seed: int

    @classmethod
    def from_adatas(cls, encoder: Encoder, adatas: Sequence[AnnData], options: LoraOptions, seed: int) -> TrainingPool:
        """Tokenize each data set with its own genes; raises what the encoder raises for values it cannot take."""
        used = copy.copy(encoder)  # the same network and tokenizer, in the training's precision
        used.precision = options.precision_on(encoder.device)
        parts = [used.tokenize(adata) for adata in adatas]
        source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return cls(used, join(parts), source, options.batch_size, seed)

    def embed(self, rows: np.ndarray) -> np.ndarray:
        """Embed cells with what is in the network now, (n_rows, dim) float32."""
        tokens = take(self.tokens, rows)
        if self.encoder.card.context:
            tokens = replace(tokens, cells={**tokens.cells, "context": self._contexts(rows)})
        return self.encoder.encode(tokens)

    def batches(self, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """Yield batches of `size` cells for ever, every cell once before any comes again."""
        rng, left = np.random.default_rng(self.seed), np.empty(0, dtype=np.int64)
        while self.encoder.card.context:
            contexts = self._contexts(rows, rng)
            for context in rng.permutation(contexts.max() + 1):
                yield rows[contexts == context]
        while True:
            while len(left) < size:
                left = np.concatenate([left, rng.permutation(rows)])
            yield left[:size]
            left = left[size:]

    def micro_batches(self, rows: np.ndarray, budget: int) -> Iterator[tuple[np.ndarray, Batch]]:
        """Cut a batch into what goes through at once: positions in `rows` and their tensors. A context stays whole."""
        tokenizer, tokens = self.encoder.tokenizer, take(self.tokens, rows)
        whole = [np.arange(len(rows))]
        for part in whole if self.encoder.card.context else tokenizer.plan(tokens, None, budget):
            yield part, tokenizer.collate(tokens, part)

    def _contexts(self, rows: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Number the contexts of cells, (n_rows,) int: equal parts of each data set, of at most `context` cells.

        They are drawn by `rng`, or by the seed and the set of cells, whatever the order of `rows`.
        """
        rng = rng or np.random.default_rng(self.seed)
        contexts, n_contexts = np.empty(len(rows), dtype=np.int64), 0
        for source in np.unique(self.source[rows]):
            members = np.flatnonzero(self.source[rows] == source)
            members = rng.permutation(members[np.argsort(rows[members], kind="stable")])
            for part in np.array_split(members, -(-len(members) // self.context)):
                contexts[part] = n_contexts
                n_contexts += 1
        return contexts


@dataclass(frozen=True)
class History:
    """What a training did. Losses are binary cross-entropies, a mean over cells and the two units."""

    budget: int  # optimiser steps that there were
    steps: int  # that were taken
    chosen: int  # after which the weights were kept, counted from 1
    batch_size: int
    n_train: int
    n_validation: int
    training: tuple[float, ...]  # loss of each step's batch, dropout on
    checked: tuple[int, ...] = ()  # steps after which the validation part was looked at
    validation: tuple[float, ...] = ()  # its loss there
    adapter_parameters: int = 0
    head_parameters: int = 0


def train_adapters(
    pool: TrainingPool,
    rows: np.ndarray,
    resistant: np.ndarray,
    held: np.ndarray,
    options: LoraOptions,
    tell: Callable[[int], None],
) -> tuple[Adapters, MLP, History]:
    """Train new adapters and a new head on cells of the pool; the encoder is left as it was.

    `rows` (n,) are positions in the pool, `resistant` (n,) bool their labels, and `held` (n,) bool marks those that
    choose the step and train nothing. Raises `InvalidInput` where the loss is no number any more.
    """
    encoder = pool.encoder
    new = Adapters.new(encoder.card, r=options.r, alpha=options.alpha, dropout=options.dropout)
    with (
        seeded(pool.seed, encoder.device),
        adapted(encoder.network, new, seed=pool.seed, checkpointing=options.gradient_checkpointing) as model,
    ):
        head = MLP(seed=pool.seed, hidden=options.hidden, lr=options.lr, device=str(encoder.device))
        head.network = head.build(encoder.dim)
        return _Training(pool, rows, resistant, held, options, model, head).run(new, tell)


class _Training:
    """The loop, while the adapters are in the network."""

    def __init__(
        self,
        pool: TrainingPool,
        rows: np.ndarray,
        resistant: np.ndarray,
        held: np.ndarray,
        options: LoraOptions,
        model: PeftModel,
        head: MLP,
    ) -> None:
        assert head.network is not None
        self.pool, self.options, self.model, self.head, self.layers = pool, options, model, head, head.network
        self.rows, self.held = rows[~held], rows[held]
        target = np.stack([~resistant, resistant], axis=1).astype(np.float32)  # (n, 2): sensitive, resistant
        self.target = dict(zip(rows.tolist(), target, strict=True))
        self.adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW([*self.adapters, *self.layers.parameters()], lr=options.lr)
        self.training: list[float] = []
        self.validation: dict[int, float] = {}

    def run(self, new: Adapters, tell: Callable[[int], None]) -> tuple[Adapters, MLP, History]:
        """Take the steps; return what was best and what happened."""
        budget = self.options.budget(len(self.rows))
        checked = self.options.checked(budget) if len(self.held) else frozenset()
        batches = self.pool.batches(self.rows, self.options.batch_size)
        chosen, waited, best = 0, 0, (new, self.layers.state_dict())
        for step in range(1, budget + 1):
            self._step(next(batches), step)
            tell(1)
            if step in checked:
                self.validation[step] = _finite(self._loss(self.held), step)
                waited += 1
                if self.validation[step] == min(self.validation.values()):
                    chosen, waited, best = step, 0, self._snapshot(new)
                if waited == self.options.patience > 0:
                    break
        if not chosen:  # nothing chooses: the last step stays
            chosen, best = len(self.training), self._snapshot(new)
        self.layers.load_state_dict(best[1])
        self.head.epoch = max(1, math.ceil(chosen * self.options.batch_size / len(self.rows)))
        return best[0], self.head, self._history(budget, chosen)

    def _step(self, batch: np.ndarray, step: int) -> None:
        """One optimiser step on a batch, micro-batch by micro-batch."""
        self.model.train()
        self.layers.train()
        try:
            total = sum(self._accumulate(batch, part, tensors) for part, tensors in self._micro_batches(batch))
        except torch.OutOfMemoryError:
            message = f"The memory of {self.pool.encoder.device} does not hold the training of a micro-batch."
            raise InvalidInput(message, "Give gradient_checkpointing=true, a lower micro_tokens, or both.") from None
        self.training.append(_finite(total, step - 1))
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _accumulate(self, batch: np.ndarray, part: np.ndarray, tensors: Batch) -> float:
        """Add the gradients of a part of the batch; return its share of the batch's loss."""
        logits = self.layers(self.pool.encoder.forward(tensors).float())  # (b, 2)
        loss = _cross_entropy(logits, self._truth(batch[part], logits)) / (2 * len(batch))
        loss.backward()
        return float(loss.detach())

    def _micro_batches(self, batch: np.ndarray) -> Iterator[tuple[np.ndarray, Batch]]:
        return self.pool.micro_batches(batch, self.options.micro_tokens_on(self.pool.encoder.device))

    def _loss(self, rows: np.ndarray) -> float:
        """Loss of cells with dropout off."""
        self.model.eval()
        self.layers.eval()
        Z = torch.from_numpy(self.pool.embed(rows)).to(self.pool.encoder.device)
        with torch.no_grad():
            logits = self.layers(Z)
            return float(_cross_entropy(logits, self._truth(rows, logits))) / (2 * len(rows))

    def _truth(self, rows: np.ndarray, logits: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.target[row] for row in rows.tolist()])).to(logits.device)

    def _snapshot(self, new: Adapters) -> tuple[Adapters, dict[str, torch.Tensor]]:
        layers = {name: value.detach().clone() for name, value in self.layers.state_dict().items()}
        return new.with_state_of(self.model), layers

    def _history(self, budget: int, chosen: int) -> History:
        return History(
            budget=budget,
            steps=len(self.training),
            chosen=chosen,
            batch_size=self.options.batch_size,
            n_train=len(self.rows),
            n_validation=len(self.held),
            training=tuple(self.training),
            checked=tuple(self.validation),
            validation=tuple(self.validation.values()),
            adapter_parameters=sum(parameter.numel() for parameter in self.adapters),
            head_parameters=sum(parameter.numel() for parameter in self.layers.parameters()),
        )


def _finite(loss: float, steps: int) -> float:
    """Return a loss that is a number; raise for any other."""
    if not math.isfinite(loss):
        message = f"The training diverged: after {steps} steps the loss is {loss}."
        raise InvalidInput(message, "Give a lower lr, or precision='float32'.")
    return loss


def _cross_entropy(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Sum over cells and both units, (b, 2) -> ()."""
    return nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
