"""How the command line prints: results to stdout, as a table for people or JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import typer


def print_rows(rows: Iterable[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print records as a table for people or JSON for programs."""
    rows = [dict(row) for row in rows]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*("" if value is None else str(plain(value)) for value in row.values()))
    console = Console()
    # A pipe has no width: a line that is cut there would lose what the next program came for.
    console.width = console.width if console.is_terminal else 400
    console.print(table)


def print_record(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one record, a line per field."""
    if as_json:
        typer.echo(json.dumps(dict(record), indent=2, default=str))
        return
    width = max(map(len, record))
    for key, value in record.items():
        if value not in (None, "", [], (), {}):
            typer.echo(f"{key:<{width}}  {value}")


def plain(value: Any) -> Any:
    """Make a field printable: floats to four digits, tuples and sets joined, mappings as key=value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, frozenset | set):
        return ", ".join(sorted(map(str, value)))
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return value
