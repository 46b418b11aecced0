"""The version of the package. pyproject.toml is the one place where the number is written."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version

from scdrugmap.settings import CHECKOUT


def _version() -> str:
    """Return the version of the installed package or, of a checkout that was not installed, that in its pyproject."""
    try:
        return version("scdrugmap")
    except PackageNotFoundError:
        return str(tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


__version__ = _version()
