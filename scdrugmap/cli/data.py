"""`scdrugmap data`: the catalogue of 60 data sets, and checks of your own files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from scdrugmap.cli.options import AsJson, File
from scdrugmap.cli.printing import plain, print_record, print_rows
from scdrugmap.errors import InvalidInput

if TYPE_CHECKING:
    from scdrugmap.evaluation.audit.audit import Audit

data = typer.Typer(no_args_is_help=True, help="The 60 data sets, and checks of your own files.")


@data.command("list")
def data_list(
    collection: Annotated[str | None, typer.Option(help="primary or external")] = None,
    cancer_type: Annotated[str | None, typer.Option(help="e.g. Melanoma")] = None,
    as_json: AsJson = False,
) -> None:
    """List the 60 data sets of the catalogue."""
    import polars as pl

    from scdrugmap.data.catalog.catalog import table

    rows = table()
    for column, wanted in {"collection": collection, "cancer_type": cancer_type}.items():
        if wanted is None:
            continue
        known = rows[column].unique().sort().to_list()
        if wanted not in known:
            raise InvalidInput(f"No data set has {column} '{wanted}'.", f"Possible: {', '.join(known)}.")
        rows = rows.filter(pl.col(column) == wanted)
    shown = rows.select("key", "collection", "cancer_type", "drug_type", "regimen", "cells", "label_basis", "flags")
    print_rows((rows if as_json else shown).to_dicts(), as_json=as_json)


@data.command("show")
def data_show(key: Annotated[str, typer.Argument(help="e.g. gse149214")], as_json: AsJson = False) -> None:
    """Show a data set's card: labels, samples, corrections, warnings."""
    from scdrugmap.data.catalog.catalog import DATASETS

    record = DATASETS[key].to_record()
    if as_json:
        print_record(record, as_json=True)
        return
    warnings, notes, corrections = (record.pop(name) for name in ("warnings", "notes", "corrections"))
    print_record({name: plain(value) for name, value in record.items()}, as_json=False)
    for warning in warnings:
        typer.echo(f"! {warning}")
    for slip in corrections:
        typer.echo(f"~ {slip['field']}: '{slip['published']}' corrected to '{slip['corrected']}'. {slip['why']}")
    for note in notes:
        typer.echo(f"- {note}")


@data.command("validate")
def data_validate(file: File, as_json: AsJson = False) -> None:
    """Check a file as the app does on upload: what is in it, and what would stop a prediction."""
    from scdrugmap.data.io.read import read_h5ad

    try:
        report = read_h5ad(file).uns["scdrugmap"]["input"]
    except InvalidInput as error:
        checks = getattr(error, "checks", [])
        _print_checks(((check.level, check.message, check.remedy) for check in checks), as_json=as_json)
        raise
    columns = (report[f"checks_{name}"] for name in ("level", "message", "remedy"))
    _print_checks(zip(*columns, strict=True), as_json=as_json)


def _print_checks(checks: Iterable[tuple[str, str, str]], *, as_json: bool) -> None:
    rows = (
        {"level": str(level), "check": str(message), "what to do": str(remedy)} for level, message, remedy in checks
    )
    print_rows(rows, as_json=as_json)


@data.command("audit")
def data_audit(
    sources: Annotated[list[str] | None, typer.Argument(help="files or catalogue keys; none: the catalogue")] = None,
    facet: Annotated[
        str, typer.Option(help="all, tissue, cancer_type, drug_type or regimen: what stands together")
    ] = "all",
    as_json: AsJson = False,
) -> None:
    """Look for what makes scores look better than they are: shared cells and patients, labels that go with a sample."""
    from scdrugmap.data.catalog.catalog import DATASETS
    from scdrugmap.evaluation.audit.audit import audit

    report = audit(sources or list(DATASETS), facet=facet)
    if as_json:
        print_record(report.to_record(), as_json=True)
    else:
        _print_audit(report)


_MARKS = {"problem": "x", "caution": "!", "unknown": "?", "good": "v"}


def _print_audit(report: Audit) -> None:
    """Print the data sets, what splits they allow, and the verdicts, gravest first."""
    print_rows(report.datasets.drop("group").to_dicts(), as_json=False)
    typer.echo()
    rows = report.splits.select("group", "protocol", "split_by", "possible", "folds", "reason")
    shown = rows.with_columns(possible=rows["possible"].replace_strict({True: "yes", False: "no"}))
    print_rows(shown.to_dicts(), as_json=False)
    typer.echo()
    for finding in report.findings:
        typer.echo(f"{_MARKS[finding.level]} {finding.said}")
