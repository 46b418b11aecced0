"""Everything that may vary between two runs, in one frozen record whose content is its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scdrugmap.errors import InvalidInput

StrategyName = Literal["freeze", "lora", "prompt"]
ProtocolName = Literal["pooled", "cross-data"]
SplitBy = Literal["cell", "sample", "patient_or_line", "dataset", "study"]

STRATEGIES = ("freeze", "lora", "prompt")
PROTOCOLS = ("pooled", "cross-data")
SPLITS = ("cell", "sample", "patient_or_line", "dataset", "study")
FACETS = ("all", "tissue", "cancer_type", "drug_type", "regimen")

CONSTANT = "constant"  # the key of the baseline that has no encoder
# The baselines that stand beside every model, and their heads; a model has the paper's.
BASELINES: Mapping[str, tuple[str, ...]] = {
    CONSTANT: ("constant",),
    "hvg": ("logistic", "gradient-boosting"),
    "hvg-pca": ("mlp",),
}

Scalar = str | int | float | bool | None
Options = tuple[tuple[str, Scalar], ...]
_WEIGHTS = {"sha256": "weights", "prompt": "wording"}  # what a hash of `Experiment.weights` is of
_ADDED: dict[str, Any] = {"train": (), "reserve": 0}  # left out at their default, so that earlier runs keep their id


@dataclass(frozen=True)
class Experiment:
    """One cell of the grid model x strategy x shots x protocol x split x facet.

    `run_id` hashes all of it, the content of the data and the weights included: asked for twice it is one run, and the
    same question about other cells or other weights is another.
    """

    model: str
    head: str
    datasets: tuple[str, ...]
    contents: tuple[str, ...] = ()  # fingerprint of cells, labels and groups of each data set
    weights: str = ""  # hash of the encoder's weights; empty where it is fitted on the training side
    strategy: str = "freeze"
    shots: int | None = None  # labelled target cells a class in training (cross-data); None: pooled, all there are
    protocol: str = "pooled"
    split_by: str = "cell"
    facet: str = "all"
    facet_value: str = ""
    folds: int = 5
    seed: int = 0
    settings: Options = ()  # the encoder's knobs, sorted by name
    options: Options = ()  # the head's, sorted by name
    recipe: int = 1  # bump when the same experiment gives other numbers
    train: tuple[str, ...] = ()  # cross-data: these data sets train and each other one tests; empty: leave one out
    reserve: int = 0  # target cells a class set aside for shots, so that all shots are tested on the same cells

    def __post_init__(self) -> None:
        """Refuse a word that the design does not have."""
        for name, value, known in (
            ("strategy", self.strategy, STRATEGIES),
            ("protocol", self.protocol, PROTOCOLS),
            ("split_by", self.split_by, SPLITS),
            ("facet", self.facet, FACETS),
        ):
            if value not in known:
                message = f"There is no {name} '{value}'."
                raise InvalidInput(message, f"Known: {', '.join(known)}.")
        if self.folds < 2:
            message = f"{self.folds} fold{'s' * (self.folds != 1)} cannot hold anything out."
            raise InvalidInput(message, "Ask for 2 folds or more.")

    @property
    def run_id(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the content."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists, dictionaries and scalars, as a run record keeps them."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name not in _ADDED or value != _ADDED[name]
        }
        return plain | {"settings": dict(self.settings), "options": dict(self.options)}

    @property
    def variant(self) -> str:
        """What sets model and training apart: settings and options that were given, weights; parts between "; "."""
        given = [f"{name}={_plain(value)}" for name, value in (*self.settings, *self.options)]
        kind, _, digest = self.weights.rpartition(":")
        weights = [f"{_WEIGHTS.get(kind, kind)} {digest[:8]}"] if digest else []
        return "; ".join([*given, *weights, *([f"recipe {self.recipe}"] if self.recipe != 1 else [])])

    @property
    def design(self) -> str:
        """What sets the question apart beside the words for it: folds or reserve, content; parts between "; "."""
        reserve = [f"{self.reserve} set aside"] if self.reserve else []
        parts = [f"{self.folds} folds"] if self.protocol == "pooled" else reserve
        cells = hashlib.sha256("|".join(self.contents).encode()).hexdigest()[:8]
        return "; ".join([*parts, *([f"cells {cells}"] if self.contents else [])])

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Experiment:
        """Read what `as_dict` wrote."""
        return cls(
            **plain
            | {
                "datasets": tuple(plain["datasets"]),
                "contents": tuple(plain["contents"]),
                "train": tuple(plain.get("train", ())),
                "settings": sorted_options(plain["settings"]),
                "options": sorted_options(plain["options"]),
            }
        )


def _plain(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def sorted_options(options: dict[str, Any] | None) -> Options:
    """Return options as pairs sorted by name, so that equal ones are one."""
    return tuple(sorted((options or {}).items()))
