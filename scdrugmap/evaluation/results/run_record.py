"""The record of one run: what was asked, what came out, and on what machine, with which versions and weights.

A record is written once and never changed; `schema` is the number of its form, and a reader refuses all others.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import math
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scdrugmap.data.labels import SIMULATED
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.settings import CHECKOUT

SCHEMA = 1
_PACKAGES = ("scdrugmap", "numpy", "scipy", "scikit-learn", "torch", "anndata", "polars", "joblib")


@dataclass(frozen=True)
class FoldScores:
    """The scores of some test cells: one fold, one data set ("dataset:<name>") or "all" (out-of-fold, all folds)."""

    fold: str
    train: tuple[str, ...]  # data sets that training saw
    test: tuple[str, ...]  # data sets of the scored cells
    n_train: int  # cells; 0 for "all", where every fold has its own
    n: int  # scored cells
    prevalence: float | None  # share of sensitive cells among them
    values: dict[str, float | None] = field(default_factory=dict)  # by metric; None where the cells do not define it
    constants: dict[str, float] = field(default_factory=dict)  # what the constant classifier scores on these cells
    low: dict[str, float | None] = field(default_factory=dict)  # 95 % bootstrap interval, where one was drawn
    high: dict[str, float | None] = field(default_factory=dict)
    unit: str = ""  # what the bootstrap drew: "sample", "cell", or "" where there is no interval
    n_units: int = 0  # how many there were
    draws: int = 0  # of the bootstrap; 0 where there is no interval
    undefined_draws: dict[str, int] = field(default_factory=dict)  # left out, by metric
    reason: str = ""  # why this fold could not be scored
    left_out: int = 0  # cross-data: cells of the training units that are copies of tested cells or of one another


@dataclass(frozen=True)
class Outcome:
    """What came out. A run that could not be done is recorded as failed, with its reason and what mends it."""

    state: Literal["done", "failed"]
    parts: tuple[FoldScores, ...] = ()
    warnings: tuple[str, ...] = ()
    duplicates_removed: int = 0
    n_cells: int = 0  # labelled cells after duplicates were removed
    n_samples: int = 0
    value_type: str = ""  # of the matrix: "counts", "log1p", "zscore", ...
    error: str = ""  # name of the error's class
    reason: str = ""
    remedy: str = ""
    splits: str = ""  # hash of the scored folds, both sides: equal for all models that were asked one question
    tests: str = ""  # hash of their test sides: equal where the same cells were scored


@dataclass(frozen=True)
class Environment:
    """Where a run was made."""

    date: str  # UTC, ISO 8601
    git_commit: str  # empty outside a checkout; "-dirty" where files had changed
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    precision: str
    weights: str
    data: dict[str, str]  # fingerprint by data set
    seconds: float
    peak_memory_mb: float  # high-water mark of the process that ran it
    asked: dict[str, Any] = field(default_factory=dict)  # what asking a model elsewhere took: host, tokens, price
    simulated: tuple[str, ...] | None = None  # data sets of simulated cells; None: an earlier version did not say


@dataclass(frozen=True)
class Run:
    """One experiment's immutable record."""

    experiment: Experiment
    outcome: Outcome
    environment: Environment
    schema: int = SCHEMA

    @property
    def run_id(self) -> str:
        """The experiment's content hash."""
        return self.experiment.run_id

    def is_simulated(self, datasets: Iterable[str]) -> bool:
        """Tell whether any of some data sets of this run is of simulated cells.

        A record of an earlier version does not say; there the names that our simulator gives count.
        """
        marked = self.environment.simulated
        return any(name.startswith(SIMULATED) if marked is None else name in marked for name in datasets)

    def to_json(self) -> str:
        """Return the record as JSON, the same for the same record."""
        plain: dict[str, Any] = {
            "schema": self.schema,
            "run_id": self.run_id,
            "experiment": self.experiment.as_dict(),
            "outcome": dataclasses.asdict(self.outcome),
            "environment": dataclasses.asdict(self.environment),
        }
        if not self.environment.asked:
            del plain["environment"]["asked"]
        if self.environment.simulated is None:
            del plain["environment"]["simulated"]
        return json.dumps(plain, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Read a record; refuse a form that this version does not know."""
        plain = json.loads(text)
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            schema = plain.get("schema") if isinstance(plain, dict) else None
            message = f"A run record has schema {schema!r}; this version reads schema {SCHEMA}."
            raise InvalidInput(message, "Use the scDrugMap version that wrote it, or run the experiment again.")
        outcome, where = plain["outcome"], plain["environment"]
        if "simulated" in where:
            where = where | {"simulated": tuple(where["simulated"])}
        parts = tuple(
            FoldScores(**part | {side: tuple(part[side]) for side in ("train", "test")}) for part in outcome["parts"]
        )
        return cls(
            experiment=Experiment.from_dict(plain["experiment"]),
            outcome=Outcome(**outcome | {"parts": parts, "warnings": tuple(outcome["warnings"])}),
            environment=Environment(**where),
        )


def defined(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the values with None for NaN, as JSON can hold them."""
    return {key: None if math.isnan(value) else float(value) for key, value in values.items()}


def environment(
    *,
    device: str,
    precision: str,
    weights: str,
    data: Mapping[str, str],
    seconds: float,
    asked: Mapping[str, Any] | None = None,
    simulated: Iterable[str] | None = None,
) -> Environment:
    """Return where this process runs.

    `seconds` is how long the experiment took, `asked` what an endpoint was paid, `simulated` names the data sets of
    simulated cells; None where nobody looked.
    """
    return Environment(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_commit=git_commit(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        device=device,
        precision=precision,
        weights=weights,
        data=dict(data),
        seconds=round(seconds, 3),
        peak_memory_mb=round(_peak_bytes() / 2**20, 1),
        asked=dict(asked or {}),
        simulated=None if simulated is None else tuple(sorted(simulated)),
    )


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


@functools.cache
def git_commit() -> str:
    """Return the commit of this checkout, "" where the package is installed without one."""
    if not (CHECKOUT / ".git").exists():
        return ""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
