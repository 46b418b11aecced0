"""The cells that tests of prompting ask about, and what the scripted endpoint thinks of them."""

from __future__ import annotations

import math

import pytest
from scripted_endpoint import opinion

from scdrugmap.models import MODELS
from scdrugmap.prompting.prompt import CellText

CARD = MODELS["gpt-4o-mini"]
CELLS = [CellText((f"GENE{number}", "ACTB")) for number in range(10)]
P = [pytest.approx(opinion(list(cell.genes)), abs=1e-6) for cell in CELLS]


def token(text: str, **alternatives: float) -> tuple[str, dict[str, float]]:
    """Give a token and its alternatives with their log probabilities; an underscore stands for a quotation mark."""
    return text, {word.replace("_", '"'): math.log(p) for word, p in (alternatives or {text: 1.0}).items()}
