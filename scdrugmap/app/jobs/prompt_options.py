"""What a model that is asked is told about the cells, and how much at a time: the words of the form, and its checks.

Knows no streamlit: the page, the job and its worker ask the same functions. A job keeps what differs from the model's
card, as plain values.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Mapping
from typing import Any

from scdrugmap.errors import InvalidInput, ScDrugMapError
from scdrugmap.models.card import ModelCard
from scdrugmap.models.core.cell_text import metadata_line
from scdrugmap.models.core.cells import ABOUT
from scdrugmap.prompting.prompt import CellText, messages
from scdrugmap.prompting.settings import OBS, PromptSettings

FIELD_LABELS = {
    "drug": "Drug",
    "cancer_type": "Cancer type",
    "tissue": "Tissue",
    "name": "Name of the model at the endpoint",
    "top_k": "Genes told of a cell",
    "cells_per_request": "Cells in a request",
    "usd_per_million_input": "USD a million tokens sent",
    "usd_per_million_output": "USD a million tokens received",
    "timeout": "Seconds to wait for an answer",
    "temperature": "Leave the temperature to the endpoint",
}
LIMIT = "Limit in US dollars"
OWN = "each cell's own column"
_PRICES = ("usd_per_million_input", "usd_per_million_output")
_SETTING = re.compile(r"--set (\w+)(?:=(\S*[\w]))?(?:=\.\.\.)?")


def differing(card: ModelCard, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs from the card; another price than the card's is one of today."""
    changed = {name: value for name, value in given.items() if value != card.settings[name]}
    if any(name in changed for name in _PRICES):
        changed["price_date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return changed


def checked(card: ModelCard, given: Mapping[str, Any]) -> PromptSettings:
    """Return the settings; raises `InvalidInput` or `UnknownName` for the first that cannot be, before a file is read.

    Values of the file's own columns are checked when they are read.
    """
    settings = PromptSettings.from_card(card, given)
    if not settings.name.strip():
        message = "There is no name of a model to ask."
        raise InvalidInput(message, f"Give the name that the endpoint knows, e.g. {card.settings['name']}.")
    metadata_line(*(value for value in _said(settings)))
    return settings


def problem(word: str, value: str, columns: Collection[str], examples: Collection[str] = ()) -> str:
    """Say in one line why something cannot be told as drug, cancer type or tissue; empty where it can.

    `columns` are those of the file, `examples` values of the column that is to be told.
    """
    if value == OBS and word not in columns:
        return f"The file has no column '{word}': write what is to be told, or nothing."
    try:
        for example in examples if value == OBS else [value]:
            metadata_line(**{word: example})
    except ScDrugMapError as error:
        return error.line
    return ""


def about(settings: Mapping[str, Any]) -> str:
    """Say what is told about the cells beside their genes ("Drug: erlotinib. Tissue: each cell's own column.")."""
    words = [OWN if settings.get(word) == OBS else str(settings.get(word) or "") for word in ABOUT]
    return metadata_line(*words)


def request_text(settings: PromptSettings) -> str:
    """Return a request as it is sent, with words in the place of genes and of what a file's column holds."""
    words = (f"<what its column {word} says>" if getattr(settings, word) == OBS else getattr(settings, word)
             for word in ABOUT)  # fmt: skip
    genes = f"<the names of its {settings.top_k} most highly expressed genes>"
    cells = [CellText((genes,), metadata_line(*words))] * min(settings.cells_per_request, 2)
    parts = [part["content"] for part in messages(cells)]
    more = settings.cells_per_request - len(cells)
    return "\n\n".join(parts) + (f"\n... and {more} more" if more else "")


def in_the_app(remedy: str) -> str:
    """Put a remedy of the command line into words of the form: `--set top_k=20` becomes "Genes told of a cell" = 20."""

    def field(match: re.Match[str]) -> str:
        label = f"“{FIELD_LABELS.get(match[1], match[1])}”"
        return label if match[2] in (None, "null") else f"{label} = {match[2]}"  # null is a box that is ticked

    return _SETTING.sub(field, remedy.replace("--max-cost", f"“{LIMIT}”"))


def _said(settings: PromptSettings) -> list[str]:
    """Return what is told about all cells alike, in the order of `ABOUT`."""
    values = (getattr(settings, word) for word in ABOUT)
    return ["" if value == OBS else value for value in values]
