"""A plan met with the data of this machine: its experiments, what is done of them, and how long the rest may take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.lacking import absent, require_cells
from scdrugmap.evaluation.outlines import Outline, outlines
from scdrugmap.evaluation.plan import placed
from scdrugmap.evaluation.plans import Plan, expand, resolve
from scdrugmap.evaluation.records import Run
from scdrugmap.evaluation.results import read_runs
from scdrugmap.settings import Settings


@dataclass(frozen=True)
class Grid:
    """The experiments of a plan and the data sets that they are about."""

    plan: Plan
    experiments: tuple[Experiment, ...]
    outlines: tuple[Outline, ...]
    weights: Mapping[str, str] = field(default_factory=dict)  # by model: folders or Hub ids for the cards' sources

    @classmethod
    def of(
        cls,
        plan: Plan,
        settings: Settings,
        folder: Path | None = None,
        device: str = "auto",
        *,
        weights: Mapping[str, str | Path] | None = None,
        fetch: bool = True,
        sketch: bool = False,
    ) -> Grid:
        """Find the plan's data, in `folder` before the plan's own, and expand it; raises what that raises.

        `weights` are folders or Hub ids by model, in place of the cards' sources; without `fetch` none are downloaded.
        A `sketch` takes what the catalogue says of data sets whose cells are not here: it cannot be run.
        """
        if folder is not None and not folder.is_dir():
            message = f"There is no folder '{folder}'."
            raise InvalidInput(message, "With --plan, --data is the folder of the plan's files.")
        missing = set(absent(plan, settings))
        if not sketch:
            require_cells(plan, settings)
        known = {}
        for name, origins in resolve(plan, folder).items():
            here = [one for one in origins if not (isinstance(one, str) and one in missing)]
            cards = [Outline.of_card(one) for one in origins if isinstance(one, str) and one in missing]
            known[name] = [*(outlines(here, settings) if here else ()), *cards]
        return cls.over(plan, known, device, weights=weights, fetch=fetch)

    @classmethod
    def over(
        cls,
        plan: Plan,
        known: Mapping[str, Sequence[Outline]],
        device: str = "auto",
        *,
        weights: Mapping[str, str | Path] | None = None,
        fetch: bool = True,
    ) -> Grid:
        """Expand a plan over data sets that are known by the name of their table."""
        named: dict[str, Outline] = {}
        for one in (one for table in known.values() for one in table):
            if named.setdefault(one.name, one).content != one.content:
                message = f"Two of the plan's data sets are called '{one.name}' and hold other cells."
                raise InvalidInput(message, "Give each its own name in obs['dataset'].")
        given = placed(weights or {}, (model for ask in plan.ask for model in ask.models))
        experiments = expand(plan, known, device, weights=given, fetch=fetch)
        return cls(plan, tuple(experiments), tuple(named.values()), given)

    def status(self, settings: Settings) -> pl.DataFrame:
        """Return one row an experiment, in the plan's order: what is asked, its state, reason and seconds."""
        made = {row["run_id"]: row for row in read_runs(settings).to_dicts()}
        rows = []
        for one in self.experiments:
            run = made.get(one.run_id, {})
            rows.append(
                {
                    **{name: getattr(one, name) for name in ASKED},
                    "datasets": "+".join(one.datasets),
                    "train": "+".join(one.train),
                    "state": run.get("state", "to do"),
                    "reason": run.get("reason", ""),
                    "remedy": run.get("remedy", ""),
                    "seconds": run.get("seconds"),
                }
            )
        types = {"shots": pl.Int64, "seed": pl.Int64, "seconds": pl.Float64}
        return pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None)


ASKED = ("run_id", "model", "head", "strategy", "protocol", "split_by", "facet", "facet_value", "shots", "seed")


@dataclass
class Pace:
    """How long experiments take, from the seconds a cell of those that were measured: the nearest kind of them."""

    cells: Mapping[str, int]  # by content of the data set
    _seconds: dict[tuple[str, ...], float] = field(default_factory=lambda: defaultdict(float))
    _cells: dict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def of(cls, known: Iterable[Outline], measured: pl.DataFrame | None = None) -> Pace:
        """Know the size of data sets and what was measured before, rows of `read_runs`."""
        pace = cls({one.content: one.n_cells for one in known})
        for row in measured.to_dicts() if measured is not None else ():
            if row["state"] == "done":
                pace._learn((row["strategy"], row["model"], row["head"]), row["seconds"], row["n_cells"])
        return pace

    def learn(self, run: Run) -> None:
        """Take in what an experiment took."""
        asked = run.experiment
        if run.outcome.state == "done":
            kind = (asked.strategy, asked.model, asked.head)
            self._learn(kind, run.environment.seconds, self._size(asked))

    def seconds(self, asked: Experiment) -> float | None:
        """Return how long an experiment may take; None where nothing was measured."""
        kind = (asked.strategy, asked.model, asked.head)
        for near in (kind, kind[:2], kind[:1], ()):
            if self._cells.get(near):
                return self._seconds[near] / self._cells[near] * self._size(asked)
        return None

    def knows(self, asked: Experiment) -> bool:
        """Tell whether the experiment's own model was measured under its strategy; all else is a guess."""
        return bool(self._cells.get((asked.strategy, asked.model)))

    def total(self, todo: Iterable[Experiment]) -> float | None:
        """Return how long experiments may take one after another; None where nothing was measured."""
        each = [self.seconds(one) for one in todo]
        known = [one for one in each if one is not None]
        return sum(known) if len(known) == len(each) else None

    def _size(self, asked: Experiment) -> int:
        return sum(self.cells.get(content, 0) for content in asked.contents)

    def _learn(self, kind: tuple[str, ...], seconds: float, cells: int) -> None:
        for near in (kind, kind[:2], kind[:1], ()):
            self._seconds[near] += seconds
            self._cells[near] += cells


def in_words(seconds: float | None) -> str:
    """Say a duration as a person would: "40 s", "12 min", "3.5 h"."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
