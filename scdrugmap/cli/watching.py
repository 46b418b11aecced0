"""How a grid shows that it moves: a live table for people at a terminal, a line an experiment for a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.plan.eta import TimeEstimate, in_words
from scdrugmap.evaluation.results.run_record import Run


class Watch:
    """Hears of every experiment that ends. Everything goes to stderr."""

    def __init__(self, experiments: Sequence[Experiment], pace: TimeEstimate) -> None:
        self.left = {experiment.run_id: experiment for experiment in experiments}
        self.all, self.pace = Counter(_entry(experiment) for experiment in experiments), pace
        self.states: dict[str, Counter[tuple[str, str, str]]] = {"done": Counter(), "failed": Counter()}
        self.started, self.worked, self.last = time.monotonic(), 0.0, ""
        self.console = Console(stderr=True)

    def shown(self) -> AbstractContextManager[Any]:
        """Show the table while the grid runs, where stderr is a terminal."""
        if not self.console.is_terminal:
            return nullcontext()
        return Live(get_renderable=self.table, console=self.console, refresh_per_second=2)

    def ended(self, run: Run, new: bool) -> None:
        """Count an experiment that ended, now or before."""
        self.left.pop(run.run_id, None)
        self.states[run.outcome.state][_entry(run.experiment)] += 1
        if not new:
            return
        self.worked += run.environment.seconds
        self.pace.learn(run)
        self.last = self._line(run)
        if not self.console.is_terminal:
            typer.echo(f"[{self.counted}] {self.last}", err=True)

    @property
    def counted(self) -> str:
        """How many of all have ended, and how long the others may take."""
        n, total = sum(self.all.values()) - len(self.left), sum(self.all.values())
        return f"{n}/{total}, {in_words(self.eta())} left"

    def eta(self) -> float | None:
        """Seconds until the others have ended, at the speed at which several workers went so far."""
        total = self.pace.total(self.left.values())
        elapsed = time.monotonic() - self.started
        at_once = max(1.0, self.worked / elapsed) if elapsed > 0 else 1.0
        return None if total is None else total / at_once

    def table(self) -> Table:
        """Return what stands where, a row a competitor."""
        table = Table(box=None, header_style="bold", pad_edge=False, caption=self.last, caption_justify="left")
        table.title, table.title_justify = f"Experiments: {self.counted}", "left"
        for column in ("model", "head", "strategy", "done", "failed", "to do"):
            table.add_column(column, justify="right" if column in ("done", "failed", "to do") else "left")
        for entry, total in self.all.items():
            done, failed = (self.states[state][entry] for state in ("done", "failed"))
            table.add_row(*entry, str(done), f"[red]{failed}[/]" if failed else "0", str(total - done - failed))
        return table

    def _line(self, run: Run) -> str:
        experiment, outcome = run.experiment, run.outcome
        what = f"{experiment.model} + {experiment.head}, {experiment.strategy}"
        shots = "" if experiment.shots is None else f", {experiment.shots} shots"
        where = (
            f"{experiment.protocol} by {experiment.split_by}{shots}, seed {experiment.seed}, {experiment.facet_value}"
        )
        end = f"{run.environment.seconds:.1f} s" if outcome.state == "done" else f"FAILED: {outcome.reason}"
        return f"{what}, {where}: {end}"


def _entry(experiment: Experiment) -> tuple[str, str, str]:
    return experiment.model, experiment.head, experiment.strategy
