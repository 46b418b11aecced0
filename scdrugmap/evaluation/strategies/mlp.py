"""The paper's head: two hidden layers of 512, trained by mini-batches so that Z may be a memory map.

Settings are those of the published code (arXiv:2505.05612, benchmarking_main_EBD.py): AdamW with its default weight
decay, no schedule, no scaling, no class weights, BCE with logits on one-hot labels. What differs, by default: the epoch
is not the last but the one with the lowest loss on a validation part of the training side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from scdrugmap.evaluation.strategies.head import FeatureMatrix, State, resistant_of
from scdrugmap.models.core.seeds import seeded

VALIDATION_SHARE = 0.1  # of each class, where the caller names no validation cells
CHUNK = 8192  # cells scored at a time


class MLP:
    """in-512-512-2 with ReLU. `epoch` is the chosen one, counted from 1; `losses` the validation loss of each."""

    def __init__(
        self,
        *,
        seed: int = 0,
        hidden: int = 512,
        epochs: int = 10,
        batch_size: int = 128,
        lr: float = 1e-4,
        select_epoch: bool = True,
        device: str = "cpu",
    ) -> None:
        self.seed, self.hidden, self.epochs, self.batch_size, self.lr = seed, hidden, epochs, batch_size, lr
        self.select_epoch, self.device = select_epoch, torch.device(device)
        self.network: nn.Sequential | None = None
        self.epoch = 0
        self.losses: list[float] = []

    def fit(self, Z: FeatureMatrix, labels: Iterable[object], validation: np.ndarray | None = None) -> MLP:
        """Train on the cells that are not in `validation`, keep the weights of the epoch that does best on those.

        Without `validation`, every tenth cell of each class is it, drawn with the seed. With `select_epoch=False` all
        cells train and the last epoch stays, as in the published code.
        """
        resistant = resistant_of(Z, labels)
        rng = np.random.default_rng(self.seed)
        if validation is None:
            validation = _drawn(resistant, rng)
        if not self.select_epoch or not validation.any():
            validation = np.zeros(len(Z), dtype=bool)
        target = np.stack([~resistant, resistant], axis=1).astype(np.float32)  # (n, 2): sensitive, resistant
        network = self.build(Z.shape[1])
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.lr)
        rows, held = np.flatnonzero(~validation), np.flatnonzero(validation)
        best: dict[str, torch.Tensor] = {}
        for epoch in range(1, self.epochs + 1):
            self._train(network, optimizer, Z, target, rng.permutation(rows))
            if len(held):
                self.losses.append(self._loss(network, Z, target, held))
            if not len(held) or self.losses[-1] == min(self.losses):
                self.epoch = epoch
                best = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(best)
        self.network = network
        return self

    def predict_proba(self, Z: FeatureMatrix) -> np.ndarray:
        """Return P(resistant), (n_cells,) float32: the resistant unit's share of the two units' probabilities."""
        assert self.network is not None, "fit comes before predict_proba"
        out = np.empty(len(Z), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(Z), CHUNK):
                p = torch.sigmoid(self.network(self._tensor(Z[start : start + CHUNK])).double())  # (b, 2)
                out[start : start + CHUNK] = (p[:, 1] / p.sum(dim=1)).cpu().numpy()
        return out

    def state(self) -> State:
        """Return the layers' weights and biases, float32, and the chosen epoch."""
        assert self.network is not None, "fit comes before state"
        layers = {name: value.cpu().numpy().copy() for name, value in self.network.state_dict().items()}
        return layers | {"epoch": np.array([self.epoch])}

    @classmethod
    def restore(cls, state: State) -> MLP:
        """Make the head again, on the CPU."""
        layers = {name: torch.from_numpy(np.array(value)) for name, value in state.items() if name != "epoch"}
        head = cls(hidden=layers["0.weight"].shape[0])
        head.network = head.build(layers["0.weight"].shape[1])
        head.network.load_state_dict(layers)
        head.epoch = int(state["epoch"][0])
        return head

    def build(self, dim: int) -> nn.Sequential:
        """Make the layers for embeddings of `dim`, with initial weights that follow the seed."""
        with seeded(self.seed, torch.device("cpu")):  # where the layers are made
            layers = [nn.Linear(dim, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.hidden), nn.ReLU()]
            return nn.Sequential(*layers, nn.Linear(self.hidden, 2)).to(self.device)

    def _train(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        Z: FeatureMatrix,
        target: np.ndarray,
        rows: np.ndarray,
    ) -> None:
        for batch in _batches(rows, self.batch_size):
            loss = nn.functional.binary_cross_entropy_with_logits(
                network(self._tensor(Z[batch])), torch.from_numpy(target[batch]).to(self.device)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _loss(self, network: nn.Module, Z: FeatureMatrix, target: np.ndarray, rows: np.ndarray) -> float:
        total = 0.0
        with torch.inference_mode():
            for batch in _batches(rows, CHUNK):
                logits, truth = network(self._tensor(Z[batch])), torch.from_numpy(target[batch]).to(self.device)
                total += float(nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum"))
        return total / (2 * len(rows))

    def _tensor(self, Z: np.ndarray) -> torch.Tensor:
        """Copy to where torch puts its own: how numpy aligned an array would decide the last bit of a product."""
        return torch.tensor(np.asarray(Z, dtype=np.float32), device=self.device)


def _batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _drawn(resistant: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mark a tenth of each class, none where a class has fewer than ten cells."""
    chosen = np.zeros(len(resistant), dtype=bool)
    counts = [int(np.count_nonzero(resistant == side)) for side in (True, False)]
    if min(counts) * VALIDATION_SHARE >= 1:
        for side, count in zip((True, False), counts, strict=True):
            take = rng.choice(np.flatnonzero(resistant == side), int(count * VALIDATION_SHARE), replace=False)
            chosen[take] = True
    return chosen
