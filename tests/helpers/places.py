"""Where tests find the repository, the parity cases and the facts that cards are checked against."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PARITY = TESTS / "parity"
FACTS = TESTS / "facts"
