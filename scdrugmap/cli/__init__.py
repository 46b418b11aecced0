"""The command line: each verb calls one public function.

Results go to stdout (`--json` where a program would read them), logs and progress to stderr. Exit codes: 0 done,
2 for what the user can mend (one line: what is wrong, what is possible, what to type), 1 for a bug.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from scdrugmap.cli.app import run_app
from scdrugmap.cli.benchmark import benchmark
from scdrugmap.cli.cells import embed, predict
from scdrugmap.cli.data import data
from scdrugmap.cli.models import models
from scdrugmap.cli.reference import reference
from scdrugmap.errors import Cancelled, ScDrugMapError
from scdrugmap.version import __version__

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli.command()(predict)
cli.command()(embed)
for name, group in {"models": models, "data": data, "benchmark": benchmark, "reference": reference}.items():
    cli.add_typer(group, name=name)
cli.command("app")(run_app)


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit code 2."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        cli()
    except Cancelled as error:
        typer.echo(f"Stopped: {error.line}", err=True)
        raise SystemExit(130) from None
    except ScDrugMapError as error:
        typer.echo(f"Error: {error.line}", err=True)
        raise SystemExit(2) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@cli.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Which cells of this tumour will resist the drug, and can a foundation model be trusted to say so?"""
