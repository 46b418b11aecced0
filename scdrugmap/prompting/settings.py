"""What may be chosen about asking a language model: the card's settings, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.models.card import ModelCard

OBS = "obs"  # in place of a drug, cancer type or tissue: each cell's own column of that name
_NO_ANSWER = ("connection_retries", "timeout", "concurrency", "batch_api", "poll", "price_date")
_LEAST: dict[str, float] = {
    "top_k": 1,
    "cells_per_request": 1,
    "room": 1,
    "retries": 0,
    "connection_retries": 0,
    "timeout": 0.01,
    "concurrency": 1,
    "poll": 0.01,
    "usd_per_million_input": 0,
    "usd_per_million_output": 0,
}


@dataclass(frozen=True)
class PromptSettings:
    """The settings of one prompted model; what each means stands on its card."""

    name: str
    top_k: int
    cells_per_request: int
    drug: str
    cancer_type: str
    tissue: str
    temperature: float | None
    logprobs: bool
    room: int  # `max_tokens` of a request; the setting keeps its name, which is in run ids
    retries: int
    connection_retries: int
    timeout: float
    concurrency: int
    batch_api: bool
    poll: float
    usd_per_million_input: float
    usd_per_million_output: float
    price_date: str

    @classmethod
    def from_card(cls, card: ModelCard, given: Mapping[str, Any] | None = None) -> PromptSettings:
        """Lay what is given over the card's defaults; raises `UnknownName` or `InvalidInput`."""
        known = {entry.name for entry in fields(cls)}
        for name in given or {}:
            if name not in known:
                message = f"'{card.key}' has no setting called '{name}'."
                raise UnknownName(message, f"Known: {', '.join(sorted(known))}.")
        chosen = {**card.settings, **(given or {})}
        for name, default in card.settings.items():
            chosen[name] = _checked(name, chosen[name], default)
        return cls(**chosen)

    def record(self) -> dict[str, Any]:
        """Return those that may change an answer or its price, as plain values."""
        return {name: value for name, value in asdict(self).items() if name not in _NO_ANSWER}


def _checked(name: str, value: Any, default: Any) -> Any:
    """Return a value of the default's type, or raise `InvalidInput` with what is possible."""
    if name == "temperature" and value is None:
        return None
    wanted = type(default)
    number = wanted in (int, float)
    fits = isinstance(value, (int, float) if wanted is float else wanted) and isinstance(value, bool) == (
        wanted is bool
    )
    if not fits or (number and not _LEAST.get(name, 0) <= value < math.inf):
        least = f" of {_LEAST.get(name, 0):g} or more" if number else ""
        message = f"{name}={value!r} is not possible."
        raise InvalidInput(message, f"Give {_KINDS[wanted]}{least}, e.g. {name}={default!r}.")
    return wanted(value)


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
