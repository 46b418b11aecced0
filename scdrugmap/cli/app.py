"""`scdrugmap app`: the app in the browser."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from scdrugmap.errors import InvalidInput
from scdrugmap.settings import site


def run_app(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 8501,
) -> None:
    """Open the app in the browser."""
    script = site() / "app.py"
    if not script.is_file():
        raise InvalidInput(
            f"The app is not installed here (no {script}).",
            "Install it anew, in a clone of the repository: pip install .",
        )
    arguments = ["--server.address", host, "--server.port", str(port)]
    if not sys.stdin.isatty() or "SPACE_ID" in os.environ:
        arguments += ["--server.headless", "true"]
    if "SPACE_ID" in os.environ:
        # A Space shows the app in an iframe of another site, where the browser keeps the XSRF cookie back.
        arguments += ["--server.enableXsrfProtection", "false"]
    # Streamlit reads .streamlit/config.toml beside the script. The user's folder stays the working folder, so that
    # relative paths in SCDRUGMAP_* mean what they mean to the other verbs; -P imports no module from there.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(script), *arguments]
    raise SystemExit(subprocess.run(command, check=False).returncode)
