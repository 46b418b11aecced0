"""A report of runs: Markdown for a repository, and one HTML file that needs no network and no other file."""

from __future__ import annotations

import base64
import datetime
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.analysis.few_shot_curves import curves
from scdrugmap.evaluation.analysis.leakage_gap import gaps
from scdrugmap.evaluation.analysis.scores import averaged, labelled, simulated
from scdrugmap.evaluation.analysis.significance import compare
from scdrugmap.evaluation.analysis.transfer_matrix import entries, matrix
from scdrugmap.evaluation.plan.grid import Grid
from scdrugmap.evaluation.report import figures as draw
from scdrugmap.evaluation.report import tables
from scdrugmap.evaluation.report.figures import Figure
from scdrugmap.evaluation.results.run_record import git_commit
from scdrugmap.evaluation.results.store import read_predictions, read_runs, read_scores
from scdrugmap.files import write
from scdrugmap.settings import Settings
from scdrugmap.version import __version__

DRAWN = ("auroc_within", "f1")  # of pooled runs
CROSSED = "auroc"  # of cross-data runs: each target is one fold
KINDS = {False: "", True: " (simulated cells)"}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #17212B; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #D5DCE1; text-align: left; white-space: nowrap; }
img { max-width: 100%; height: auto; } code { font-size: 0.85em; } a { color: #0F766E; }
"""


@dataclass
class Page:
    """What has been written so far: Markdown and figures."""

    lines: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def say(self, *lines: str) -> None:
        """Add paragraphs."""
        self.lines += [line for one in lines for line in (one, "")]

    def show(self, figure: Figure) -> None:
        """Add a figure."""
        self.figures.append(figure)
        self.say(f"![{tables.plain(figure.alt)}](figures/{figure.name}.svg)")


def write_report(output: Path, settings: Settings, grid: Grid | None = None) -> list[Path]:
    """Write report.md, report.html and figures/ into `output`; of a grid's runs, or of all on this machine.

    Returns what was written. Raises `InvalidInput` where nothing has been run.
    """
    scores, made = read_scores(settings).filter(source="measured"), read_runs(settings)
    if grid is not None:
        asked = [one.run_id for one in grid.experiments]
        scores, made = (table.filter(pl.col("run_id").is_in(asked)) for table in (scores, made))
    if made.is_empty():
        message = "None of these experiments has been run on this machine."
        raise InvalidInput(message, "Run: scdrugmap benchmark run --plan FILE")
    page = Page()
    _head(page, grid, made)
    for kind, words in KINDS.items():
        own = scores.filter(simulated(scores) == kind)
        if not own.is_empty():
            _scores(page, own, made, settings, words)
            _gaps(page, own, settings, words)
            _comparison(page, own, words, made_up=kind)
            _transfer(page, own, made, words, made_up=kind)
            _few_shot(page, own, words, made_up=kind)
    _failures(page, made, grid)
    return list(_written(page, output, grid.plan.title if grid else "Runs"))


def _head(page: Page, grid: Grid | None, made: pl.DataFrame) -> None:
    states = {state: made.filter(state=state).height for state in ("done", "failed")}
    missing = len(grid.experiments) - len(made) if grid else 0
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    page.say(f"# {grid.plan.title if grid else 'Benchmark runs'}")
    if grid and grid.plan.about:
        page.say(grid.plan.about)
    page.say(
        f"{states['done']} experiments are done, {states['failed']} failed, {missing} are to do. "
        f"Written {now} by scDrugMap {__version__}{f' ({git_commit()[:12]})' if git_commit() else ''}.",
        "F1 has sensitive as its positive class. The **constant** is what a classifier that ignores expression scores "
        "on the same cells: no F1 says anything without it. Intervals are 95 % bootstrap intervals over samples, or "
        "over cells where a record says so. A split by cell is the paper's and leaks; by sample, patient or line, data "
        "set or study, nothing of a test unit trains. docs/protocols.md defines each number.",
    )


def _scores(page: Page, scores: pl.DataFrame, made: pl.DataFrame, settings: Settings, words: str) -> None:
    """Say every score, a table for each set of cells; the paper's split stands beside the leak-safe ones."""
    page.say(f"## Scores{words}")
    means = tables.with_entry(averaged(scores))
    for number, (title, own) in enumerate(tables.views(means)):
        page.say(f"### {title}", tables.score_table(own, made, settings))
        pooled = own.filter(protocol="pooled")
        for metric in DRAWN:
            rows = pooled.filter(pl.col("metric") == metric, pl.col("value").is_not_null())
            if not rows.is_empty():
                page.show(draw.intervals(rows, f"scores{_mark(words)}-{number}-{metric}", metric, title))


def _gaps(page: Page, scores: pl.DataFrame, settings: Settings, words: str) -> None:
    found = gaps(scores, lambda run_id: read_predictions(run_id, settings), DRAWN)
    found = tables.with_entry(found.filter(pl.col("gap").is_not_null()))
    if found.is_empty():
        return
    page.say(
        f"## Leakage gap{words}",
        "How much higher the same entry scores on the same cells where the split is by cell. The interval draws the "
        "same samples for both.",
        tables.gap_table(found),
    )
    metric = DRAWN[0]
    for number, ((where, split_by), own) in enumerate(found.filter(metric=metric).group_by("facet_value", "split_by")):
        page.show(draw.gaps(own, f"gap{_mark(words)}-{number}", metric, f"{where}, by cell against by {split_by}"))


def _comparison(page: Page, scores: pl.DataFrame, words: str, *, made_up: bool) -> None:
    """Compare entries over data sets, one view a split and protocol, where there are enough."""
    keys = ["protocol", "split_by", "facet", "strategy"]
    for (protocol, split_by, facet, strategy), own in scores.group_by(keys, maintain_order=True):
        metric = CROSSED if protocol == "cross-data" else DRAWN[0]
        one = own.filter(pl.col("shots").is_null() | (pl.col("shots") == 0))
        try:
            found = compare(one, metric, made_up=made_up, split_by=split_by, protocol=protocol)
        except InvalidInput:
            continue
        page.say(
            f"## Comparison over data sets{words}: {protocol} by {split_by}, {facet}, {strategy}",
            tables.comparison(found),
        )


def _transfer(page: Page, scores: pl.DataFrame, made: pl.DataFrame, words: str, *, made_up: bool) -> None:
    known = entries(scores, made_up=made_up)
    if known.is_empty():
        return
    page.say(
        f"## Transfer{words}",
        "Each data set of the rows trains alone; each one of the columns is tested. Mean over seeds.",
    )
    for number, row in enumerate(labelled(known).to_dicts()):
        entry = {name: row[name] for name in ("model", "head", "strategy", "variant", "shots", "split_by")}
        table = matrix(scores, CROSSED, made_up=made_up, **entry)
        label = f", {row['label']}" if row["label"] else ""
        where = f"{row['model']} + {row['head']}, {row['strategy']}{label}, {row['shots']} shots"
        page.say(f"### {where}", tables.matrix_table(table))
        page.show(draw.matrix(table, f"transfer{_mark(words)}-{number}", CROSSED, where))


def _few_shot(page: Page, scores: pl.DataFrame, words: str, *, made_up: bool) -> None:
    found = curves(scores, CROSSED, made_up=made_up)
    found = tables.with_entry(found.filter(pl.col("value").is_not_null()))
    if found.is_empty():
        return
    page.say(
        f"## Few shots{words}",
        "Labelled cells a class of the target beside the other data sets. All points of a curve are tested on the same "
        "cells; 'all' is the target alone, split by sample.",
        tables.curve_table(found),
    )
    for number, ((test, train), own) in enumerate(found.group_by("test", "train", maintain_order=True)):
        where = f"{test}, beside {train}" if train else f"{test} alone"
        if own["point"].n_unique() > 1:
            page.show(draw.curves(own, f"shots{_mark(words)}-{number}", CROSSED, where))


def _failures(page: Page, made: pl.DataFrame, grid: Grid | None) -> None:
    failed = made.filter(state="failed")
    page.say("## What could not be done")
    page.say(tables.failure_table(failed) if not failed.is_empty() else "Nothing failed.")
    if grid and grid.plan.remarks:
        page.say("## What to know of the data sets", tables.remarks(grid.plan.remarks))


def _mark(words: str) -> str:
    return "-simulated" if words else ""


def _written(page: Page, output: Path, title: str) -> Iterator[Path]:
    """Write Markdown, HTML and figures."""
    text = "\n".join(page.lines)
    files: dict[Path, str] = {output / "report.md": text, output / "report.html": as_html(text, page.figures, title)}
    files |= {output / "figures" / f"{figure.name}.svg": figure.svg for figure in page.figures}
    for path, content in files.items():
        write(path, content)
        yield path


def as_html(text: str, figures: Sequence[Figure], title: str) -> str:
    """Return a page that holds its figures: Markdown without raw HTML, so that no name of a data set is markup."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("js-default").render(text)
    for figure in figures:
        data = base64.b64encode(figure.svg.encode()).decode()
        body = body.replace(f'src="figures/{figure.name}.svg"', f'src="data:image/svg+xml;base64,{data}"')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}</main></body></html>\n"
    )
