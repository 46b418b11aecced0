"""A report of runs: Markdown for a repository, and one HTML file that needs no network and no other file."""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.plan.grid import Grid
from scdrugmap.evaluation.report import sections, tables
from scdrugmap.evaluation.report.sections import Figure, Results, Section
from scdrugmap.evaluation.results.run_record import git_commit
from scdrugmap.evaluation.results.store import read_runs, read_scores
from scdrugmap.files import write
from scdrugmap.settings import Settings
from scdrugmap.version import __version__

SECTIONS = (
    sections.score_sections,
    sections.gap_section,
    sections.comparison_sections,
    sections.transfer_sections,
    sections.few_shot_section,
)
HOW_TO_READ = (
    "F1 has sensitive as its positive class. The constant is what a classifier that ignores expression scores on the "
    "same cells: no F1 says anything without it. Intervals are 95 % bootstrap intervals over samples, or over cells "
    "where a record says so. A split by cell is the paper's and leaks; by sample, patient or line, data set or study, "
    "nothing of a test unit trains. docs/protocols.md defines each number."
)
_MARKUP = re.compile(r"([\\`*_\[\]<>|&~$])")  # what Markdown reads inside a line


def write_report(output: Path, settings: Settings, grid: Grid | None = None) -> list[Path]:
    """Write report.md, report.html and figures/ into `output`; of a grid's runs, or of all on this machine.

    Returns what was written. Raises `InvalidInput` where nothing has been run.
    """
    scores, runs = read_scores(settings).filter(source="measured"), read_runs(settings)
    if grid is not None:
        planned = [experiment.run_id for experiment in grid.experiments]
        scores, runs = (table.filter(pl.col("run_id").is_in(planned)) for table in (scores, runs))
    if runs.is_empty():
        message = "None of these experiments has been run on this machine."
        raise InvalidInput(message, "Run: scdrugmap benchmark run --plan FILE")
    report = [_head(runs, grid)]
    for kind in (False, True):
        results = Results(scores.filter(simulated=kind), runs, settings, kind)
        if not results.scores.is_empty():
            report += [section for make in SECTIONS for section in make(results)]
    report += _failures(runs, grid)
    return list(_written(report, output))


def _head(runs: pl.DataFrame, grid: Grid | None) -> Section:
    states = {state: runs.filter(state=state).height for state in ("done", "failed")}
    missing = len(grid.experiments) - len(runs) if grid else 0
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    about = [grid.plan.about] if grid and grid.plan.about else []
    state = (
        f"{states['done']} experiments are done, {states['failed']} failed, {missing} are to do. "
        f"Written {now} by scDrugMap {__version__}{f' ({git_commit()[:12]})' if git_commit() else ''}."
    )
    return Section(grid.plan.title if grid else "Benchmark runs", [*about, state, HOW_TO_READ], level=1)


def _failures(runs: pl.DataFrame, grid: Grid | None) -> Iterator[Section]:
    failed = runs.filter(state="failed")
    yield Section("What could not be done", ["Nothing failed." if failed.is_empty() else tables.failure_table(failed)])
    if grid and grid.plan.remarks:
        yield Section("What to know of the data sets", [tables.remark_table(grid.plan.remarks)])


def _written(report: Sequence[Section], output: Path) -> Iterator[Path]:
    """Write Markdown, HTML and figures."""
    figures = [block for section in report for block in section.blocks if isinstance(block, Figure)]
    files = {output / name: render(name, report) for name in ("report.md", "report.html")}
    files |= {output / "figures" / f"{figure.name}.svg": figure.svg for figure in figures}
    for path, content in files.items():
        write(path, content)
        yield path


def render(name: str, report: Sequence[Section]) -> str:
    """Return "report.md" or "report.html" from its template; no name of a data set is markup in either."""
    templates = Environment(
        loader=PackageLoader(__package__ or "scdrugmap.evaluation.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"plain": plain, "base64": lambda text: base64.b64encode(text.encode()).decode()}
    return templates.get_template(f"{name}.j2").render(sections=report)


def plain(text: object) -> str:
    """Return text on one line that cannot be read as Markdown of its own; "" for None."""
    return "" if text is None else _MARKUP.sub(r"\\\1", " ".join(str(text).split()))
