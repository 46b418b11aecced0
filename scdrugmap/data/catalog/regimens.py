"""Regimens as the source words them -> the drugs that they are made of."""

from __future__ import annotations

import re

_SAME_DRUG = {"5-FU": "5-fluorouracil", "Cyclin-dependent kinase 4/6 inhibitors": "CDK4/6 inhibitors"}
_BETWEEN_DRUGS = re.compile(r"\s*(?:\+|\bOR\b|\bor\b|\band\b|\bcombined with\b)\s*")


def split_regimen(regimen: str) -> tuple[str, ...]:
    """Return the drugs of a regimen, alternatives included: "a + (b or c)" -> a, b, c.

    A bracket that lists ("DARA-KRD (daratumumab + ...)") replaces its acronym; one that abbreviates is dropped.
    """
    acronym = re.fullmatch(r"[^()+]+\(([^()]*\+[^()]*)\)", regimen)
    plain = acronym[1] if acronym else re.sub(r"(?<=\w)\s*\([^()]*\)", "", regimen)
    anti = re.sub(r"(anti-[\w-]+)\+(?!\s|anti-)", r"\1 + anti-", plain)  # "anti-CTLA4+PD-1" names two antibodies
    parts = (part.strip(" ()") for part in _BETWEEN_DRUGS.split(anti))
    drugs = (_SAME_DRUG.get(part, part[0].lower() + part[1:] if part[1:].islower() else part) for part in parts if part)
    return tuple(dict.fromkeys(drugs))
