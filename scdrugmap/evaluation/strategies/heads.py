"""The classifiers on top of an embedding: fit on labelled vectors, then give P(resistant) of others.

All are seeded and repeat themselves on a CPU. `state()` gives a fitted head as plain arrays (safetensors), from which
`head_from_state` makes it again; gradient boosting and nearest neighbours have no such form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.evaluation.strategies.head import FeatureMatrix, Head, State, resistant_of
from scdrugmap.registry import Registry

DOUBLE = 2**31  # bytes of standardised cells up to which logistic regression works in float64
_BLOCK = 2**15  # cells that are standardised or scored at a time


@dataclass(frozen=True)
class HeadCard:
    """One head: its words, its options with their defaults, and how it is made."""

    key: str
    title: str
    definition: str
    options: Mapping[str, Any]
    make: Callable[..., Head]
    chooses_epoch: bool = False  # wants a validation part of the training side
    restore: Callable[[State], Head] | None = None


class Constant:
    """Gives every cell the share of resistant cells of the training side: it knows the labels and no expression."""

    def __init__(self, *, seed: int = 0) -> None:
        self.share = np.nan

    def fit(self, Z: FeatureMatrix, labels: Iterable[object], validation: np.ndarray | None = None) -> Constant:
        """Remember the share."""
        self.share = float(resistant_of(Z, labels).mean())
        return self

    def predict_proba(self, Z: FeatureMatrix) -> np.ndarray:
        """Return the share for every cell."""
        return np.full(len(Z), self.share, dtype=np.float32)

    def state(self) -> State:
        """Return the share."""
        return {"share": np.array([self.share])}

    @classmethod
    def restore(cls, state: State) -> Constant:
        """Make the head again."""
        head = cls()
        head.share = float(state["share"][0])
        return head


class Estimator:
    """A scikit-learn classifier behind the interface of a head."""

    def __init__(self, name: str, classifier: Any) -> None:
        self.name = name
        self.classifier = classifier

    def fit(self, Z: FeatureMatrix, labels: Iterable[object], validation: np.ndarray | None = None) -> Estimator:
        """Fit on all cells; nothing is chosen, so the validation part trains too."""
        self.classifier.fit(np.asarray(Z), resistant_of(Z, labels))
        return self

    def predict_proba(self, Z: FeatureMatrix) -> np.ndarray:
        """Return the classifier's probability of the resistant class."""
        return self.classifier.predict_proba(np.asarray(Z))[:, 1].astype(np.float32)

    def state(self) -> State:
        """Refuse: this classifier is not a set of arrays."""
        message = f"A fitted '{self.name}' head cannot be kept as arrays."
        raise InvalidInput(message, f"Use one that can: {', '.join(_restorable())}.")


class Logistic:
    """Logistic regression (L2, C=1) on features standardised with the training side's mean and deviation."""

    def __init__(self, *, seed: int = 0, C: float = 1.0, max_iter: int = 2000) -> None:
        self.seed, self.C, self.max_iter = seed, C, max_iter
        self.weight = self.bias = np.zeros(0)

    def fit(self, Z: FeatureMatrix, labels: Iterable[object], validation: np.ndarray | None = None) -> Logistic:
        """Fit on all cells, with L-BFGS until it converges; fold the standardisation into weight and bias.

        The standardised cells are held in memory once, in float64, or in float32 where that takes over `DOUBLE` bytes.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        resistant = resistant_of(Z, labels)
        dtype = np.float64 if 8 * len(Z) * Z.shape[1] <= DOUBLE else np.float32
        scaler = StandardScaler()
        for block in _blocks(len(Z)):
            scaler.partial_fit(np.asarray(Z[block], dtype=np.float64))
        scaled = np.empty(Z.shape, dtype=dtype)
        for block in _blocks(len(Z)):
            scaled[block] = scaler.transform(np.asarray(Z[block], dtype=np.float64))
        model = LogisticRegression(C=self.C, max_iter=self.max_iter, random_state=self.seed)
        model.fit(scaled, resistant)
        self.weight = model.coef_[0].astype(np.float64) / scaler.scale_
        self.bias = model.intercept_ - scaler.mean_ @ self.weight
        return self

    def predict_proba(self, Z: FeatureMatrix) -> np.ndarray:
        """Return the logistic function of the weighted sum."""
        from scipy.special import expit

        p = np.empty(len(Z), dtype=np.float32)
        for block in _blocks(len(Z)):
            p[block] = expit(np.asarray(Z[block], dtype=np.float64) @ self.weight + self.bias)
        return p

    def state(self) -> State:
        """Return weight (dim,) and bias (1,), float64, for features as they come."""
        return {"weight": self.weight, "bias": self.bias}

    @classmethod
    def restore(cls, state: State) -> Logistic:
        """Make the head again."""
        head = cls()
        head.weight, head.bias = np.asarray(state["weight"]), np.asarray(state["bias"])
        return head


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, n, _BLOCK))


def _mlp(**options: Any) -> Head:
    from scdrugmap.evaluation.strategies.mlp import MLP

    return MLP(**options)


def _mlp_again(state: State) -> Head:
    from scdrugmap.evaluation.strategies.mlp import MLP

    return MLP.restore(state)


class Neighbours(Estimator):
    """The share of resistant cells among the nearest training cells, features standardised."""

    def __init__(self, *, seed: int = 0, neighbours: int = 15) -> None:
        super().__init__("knn", None)
        self.neighbours = neighbours

    def fit(self, Z: FeatureMatrix, labels: Iterable[object], validation: np.ndarray | None = None) -> Estimator:
        """Remember the cells; with fewer than `neighbours` of them, all are near."""
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        nearest = KNeighborsClassifier(min(self.neighbours, len(Z)))
        self.classifier = make_pipeline(StandardScaler(), nearest)
        return super().fit(Z, labels)


def _gradient_boosting(*, seed: int = 0, max_iter: int = 100) -> Head:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=max_iter, early_stopping=False, random_state=seed)
    return Estimator("gradient-boosting", model)


_HEADS = (
    HeadCard(
        "mlp",
        "MLP",
        "dim-512-512-2 with ReLU, AdamW at 1e-4, 10 epochs of batches of 128, binary cross-entropy on one-hot "
        "labels (the paper's), at the epoch with the lowest loss on a validation part of the training side",
        {"hidden": 512, "epochs": 10, "batch_size": 128, "lr": 1e-4, "select_epoch": True, "device": "cpu"},
        _mlp,
        chooses_epoch=True,
        restore=_mlp_again,
    ),
    HeadCard(
        "logistic",
        "Logistic regression",
        "L2-penalised logistic regression (C=1) on features standardised on the training side",
        {"C": 1.0, "max_iter": 2000},
        Logistic,
        restore=Logistic.restore,
    ),
    HeadCard(
        "knn",
        "Nearest neighbours",
        "share of resistant cells among the 15 nearest training cells, features standardised",
        {"neighbours": 15},
        Neighbours,
    ),
    HeadCard(
        "gradient-boosting",
        "Gradient boosting",
        "histogram gradient boosting of scikit-learn, 100 trees, no early stopping",
        {"max_iter": 100},
        _gradient_boosting,
    ),
    HeadCard(
        "constant",
        "Constant",
        "every cell gets the training side's share of resistant cells: labels are known, expression is not",
        {},
        Constant,
        restore=Constant.restore,
    ),
)
HEADS: Registry[HeadCard] = Registry("head", lambda: _HEADS)


def make_head(name: str, *, seed: int = 0, device: str = "cpu", **options: Any) -> Head:
    """Return an unfitted head; `device` concerns the one that is a network.

    Raises `UnknownName` for a head or an option that there is not.
    """
    card = HEADS[name]
    for option in options:
        if option not in card.options:
            message = f"The head '{name}' has no option '{option}'."
            raise UnknownName(message, f"It has: {', '.join(card.options) or 'none'}.")
    if "device" in card.options:
        options["device"] = device
    return card.make(seed=seed, **options)


def head_from_state(name: str, state: Mapping[str, np.ndarray]) -> Head:
    """Return the fitted head whose `state()` this is."""
    restore = HEADS[name].restore
    if restore is None:
        message = f"A '{name}' head cannot be made from arrays."
        raise InvalidInput(message, f"Heads that can: {', '.join(_restorable())}.")
    return restore(dict(state))


def _restorable() -> list[str]:
    return [card.key for card in HEADS.values() if card.restore is not None]
