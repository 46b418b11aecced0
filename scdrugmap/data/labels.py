"""The two class words, and how the spellings that users bring become them.

A cell is `sensitive` or `resistant`; `None` stands for a cell without a label. Codes such as 0/1 or True/False are
refused: published files use them both ways round, and a swapped label turns every score into its mirror image.
Time points ("pre", "post", "day 11") are refused too: when a sample was taken is not how it responded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from scdrugmap.errors import InvalidInput, LabelsMissing

SENSITIVE = "sensitive"
RESISTANT = "resistant"
RESPONSES = (SENSITIVE, RESISTANT)
SIMULATED = "simulated-"  # what the data sets of our simulator are called, before a number or a name

# Compared after lower-casing and dropping all but letters and digits. RECIST: CR and PR respond, PD progresses.
_SENSITIVE = frozenset(
    {"sensitive", "sens", "s", "responder", "responders", "respond", "responding", "response", "responsive", "cr", "pr"}
    | {"crpr", "pcr", "mpr", "completeresponse", "completeresponder", "partialresponse", "partialresponder"}
    | {"objectiveresponse", "susceptible", "drugsensitive", "favorable", "favourable"}
)
_RESISTANT = frozenset(
    {"resistant", "resist", "res", "resistance", "resisting", "nonresponder", "nonresponders", "nonresponse", "nr"}
    | {"nonresponding", "nonresponsive", "noresponse", "notresponding", "pd", "progressivedisease", "progression"}
    | {
        "progressor",
        "refractory",
        "drugresistant",
        "tolerant",
        "drugtolerant",
        "persister",
        "insensitive",
        "unfavorable",
    }
    | {"unfavourable", "nonsensitive"}
)
_MISSING = frozenset(
    {"", "nan", "na", "none", "null", "nat", "unlabelled", "unlabeled", "unknown", "unassigned", "notavailable"}
    | {"notassessed", "notevaluable", "ne", "missing", "undefined"}
)
_CODES = frozenset({"0", "1", "true", "false", "yes", "no", "y", "n", "10", "00", "2"})
_TIMES = frozenset(
    {"pre", "post", "before", "after", "pretreatment", "posttreatment", "untreated", "treated", "baseline"}
)


def read_labels(values: Iterable[object], mapping: Mapping[object, str | None] | None = None) -> np.ndarray:
    """Return the response of each cell from whatever spelling the file uses.

    Parameters
    ----------
    values
        One value a cell: strings, categories, numbers or missing, shape (n_cells,).
    mapping
        What the file's own values mean, such as `{0: "resistant", 1: "sensitive", "SD": None}`; it goes before the
        known spellings, and compares as text without regard to case.

    Returns
    -------
    Array of shape (n_cells,), dtype object: "sensitive", "resistant" or None.

    Raises
    ------
    InvalidInput
        A value is ambiguous (0/1, True/False, a lone "R"), a time point, or unknown.
    """
    codes, spellings = pd.factorize(_as_text(values))
    given = {_fold(_spell(value)): meaning for value, meaning in (mapping or {}).items()}
    for meaning in given.values():
        _check_meaning(meaning)
    folded = {spelling: _fold(spelling) for spelling in spellings}
    lone_r = _meaning_of_r(set(folded.values()))
    meanings: list[str | None] = []
    unread: list[str] = []
    for spelling, key in folded.items():
        known, meaning = _read(key, given, lone_r)
        meanings.append(meaning)
        if not known:
            unread.append(spelling)
    if unread:
        raise _unreadable(unread)
    table = np.array([*meanings, None], dtype=object)  # code -1 is missing and takes the last
    return table[codes]


def is_sensitive(labels: Iterable[object]) -> np.ndarray:
    """Return whether each label is "sensitive", shape (n_cells,), bool; a missing or foreign label is an error."""
    array = np.asarray(labels if isinstance(labels, np.ndarray) else list(labels), dtype=object)
    sensitive = array == SENSITIVE
    known = sensitive | (array == RESISTANT)
    if not known.all():
        missing = int(np.count_nonzero(~known))
        message = f"{missing} of {len(array)} cells are labelled neither '{SENSITIVE}' nor '{RESISTANT}'."
        raise LabelsMissing(message, "Drop them first, or read the column with scdrugmap.data.labels.read_labels.")
    return np.asarray(sensitive, dtype=bool)


def _as_text(values: Iterable[object]) -> pd.Series:
    """Strings, with None for missing."""
    series = pd.Series(np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=object))
    return series.map(_spell).where(series.notna(), None)


def _spell(value: object) -> str:
    """Text of a value; 1.0 reads as "1", so that a column of codes with gaps is recognised as codes."""
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _fold(spelling: str) -> str:
    return re.sub(r"[^a-z0-9]", "", spelling.lower())


def _check_meaning(meaning: object) -> None:
    if meaning is not None and meaning not in RESPONSES:
        message = f"A label cannot mean '{meaning}'; possible are '{SENSITIVE}', '{RESISTANT}' and None."
        raise InvalidInput(message, f"Map each value to one of them, such as {{1: '{SENSITIVE}', 0: '{RESISTANT}'}}.")


def _meaning_of_r(spellings: set[str]) -> str | None:
    """ "R" is resistant beside "S" and responder beside "NR"; alone it could be either."""
    beside_s, beside_nr = "s" in spellings, "nr" in spellings
    if beside_s == beside_nr:
        return None
    return RESISTANT if beside_s else SENSITIVE


def _read(key: str, given: Mapping[str, str | None], lone_r: str | None) -> tuple[bool, str | None]:
    """Return (is the spelling known, what it means)."""
    if key in given:
        return True, given[key]
    if key == "r":
        return lone_r is not None, lone_r
    if key in _SENSITIVE:
        return True, SENSITIVE
    if key in _RESISTANT:
        return True, RESISTANT
    return key in _MISSING, None


def _unreadable(spellings: list[str]) -> InvalidInput:
    shown = ", ".join(f"'{spelling}'" for spelling in spellings[:5]) + (", ..." if len(spellings) > 5 else "")
    folded = {_fold(spelling) for spelling in spellings}
    if folded & _CODES:
        why = "codes are used both ways round in published files"
    elif folded & _TIMES:
        why = "a time point is not a response"
    elif "r" in folded:
        why = "'R' may mean resistant or responder"
    else:
        why = f"known are words such as '{SENSITIVE}', 'responder', 'CR', '{RESISTANT}', 'non-responder', 'PD'"
    message = f"The labels {shown} cannot be read as {SENSITIVE} or {RESISTANT}: {why}."
    example = spellings[0]
    return InvalidInput(
        message, f"Write '{SENSITIVE}' or '{RESISTANT}', or pass mapping={{'{example}': '{SENSITIVE}', ...}}."
    )
