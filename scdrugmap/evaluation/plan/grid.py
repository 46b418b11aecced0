"""A plan met with the data of this machine: its experiments, what is done of them, and how long the rest may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.cells.dataset_summary import DatasetSummary, summaries
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.plan.expand import placed
from scdrugmap.evaluation.plan.experiments import expand
from scdrugmap.evaluation.plan.plan_file import Plan, resolve
from scdrugmap.evaluation.plan.preflight import absent, require_cells
from scdrugmap.evaluation.results.store import read_runs
from scdrugmap.settings import Settings


@dataclass(frozen=True)
class Grid:
    """The experiments of a plan and the data sets that they are about."""

    plan: Plan
    experiments: tuple[Experiment, ...]
    summaries: tuple[DatasetSummary, ...]
    weights: Mapping[str, str] = field(default_factory=dict)  # by model: folders or Hub ids for the cards' sources

    @classmethod
    def from_plan(
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
            here = [origin for origin in origins if not (isinstance(origin, str) and origin in missing)]
            cards = [
                DatasetSummary.from_card(origin) for origin in origins if isinstance(origin, str) and origin in missing
            ]
            known[name] = [*(summaries(here, settings) if here else ()), *cards]
        return cls.over(plan, known, device, weights=weights, fetch=fetch)

    @classmethod
    def over(
        cls,
        plan: Plan,
        known: Mapping[str, Sequence[DatasetSummary]],
        device: str = "auto",
        *,
        weights: Mapping[str, str | Path] | None = None,
        fetch: bool = True,
    ) -> Grid:
        """Expand a plan over data sets that are known by the name of their table."""
        named: dict[str, DatasetSummary] = {}
        for summary in (summary for table in known.values() for summary in table):
            if named.setdefault(summary.name, summary).content != summary.content:
                message = f"Two of the plan's data sets are called '{summary.name}' and hold other cells."
                raise InvalidInput(message, "Give each its own name in obs['dataset'].")
        given = placed(weights or {}, (model for ask in plan.ask for model in ask.models))
        experiments = expand(plan, known, device, weights=given, fetch=fetch)
        return cls(plan, tuple(experiments), tuple(named.values()), given)

    def status(self, settings: Settings) -> pl.DataFrame:
        """Return one row an experiment, in the plan's order: what is asked, its state, reason and seconds."""
        made = {row["run_id"]: row for row in read_runs(settings).to_dicts()}
        rows = []
        for experiment in self.experiments:
            run = made.get(experiment.run_id, {})
            rows.append(
                {
                    **{name: getattr(experiment, name) for name in _ASKED},
                    "datasets": list(experiment.datasets),
                    "train": list(experiment.train),
                    "state": run.get("state", "to do"),
                    "reason": run.get("reason", ""),
                    "remedy": run.get("remedy", ""),
                    "seconds": run.get("seconds"),
                }
            )
        types: dict[str, Any] = {"shots": pl.Int64, "seed": pl.Int64, "seconds": pl.Float64}
        types |= dict.fromkeys(("datasets", "train"), pl.List(pl.String))
        return pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None)


_ASKED = ("run_id", "model", "head", "strategy", "protocol", "split_by", "facet", "facet_value", "shots", "seed")
