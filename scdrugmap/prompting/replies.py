"""From a language model's reply to one answer a cell, matched by id; what cannot be read is no answer.

A cell has an answer where its id stands once in the reply with one of the two labels and a probability between 0 and 1.
P(resistant) is read from the label token where the endpoint gives its alternatives: the mass of alternatives that say
"resistant", over that of both labels (an alternative that is not listed counts as 0). The label is then what was drawn
from them, and P decides. Elsewhere P is what the model states; on the other side of 0.5 than the label it is no answer,
and at 0.5 the label decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from scdrugmap.data.labels import RESISTANT, RESPONSES
from scdrugmap.prompting.parse_json import entries_of
from scdrugmap.prompting.prompt import names_of

SOURCES = {  # of P(resistant), in words
    "logprobs": "read from how sure the model was of the word (token probabilities)",
    "stated": "as the model states it",
}
PROBLEMS = ("unreadable", "missing", "duplicate", "foreign id", "no label", "no probability", "contradiction")
SENSITIVE_TIE = 0.4999  # the most that P is where the label is sensitive: one half is called resistant


@dataclass(frozen=True)
class Reply:
    """What an endpoint said to one request, as it is kept on disk."""

    content: str  # the text; empty where the model refused
    odds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # by id: mass of resistant, of sensitive
    input_tokens: int = 0
    output_tokens: int = 0
    finish: str = ""  # why the text ends: stop, length, content_filter, ...
    served: str = ""  # the model as the endpoint calls it
    form: str = ""  # what form the endpoint was held to: json_schema, json_object or text
    date: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Reply:
        """Read what `as_dict` wrote; raises `TypeError` or `ValueError` for anything else."""
        if not isinstance(plain["content"], str):
            raise TypeError("content")
        odds = {str(name): (float(pair[0]), float(pair[1])) for name, pair in plain["odds"].items()}
        return cls(**{**plain, "odds": odds})


@dataclass(frozen=True)
class Answer:
    """What a model says of one cell."""

    p_resistant: float
    source: str  # one of SOURCES


def read(reply: Reply, n_cells: int) -> tuple[dict[str, Answer], Counter[str]]:
    """Return the readable answers by id, and what was wrong with the others, one of `PROBLEMS` each."""
    asked = names_of(n_cells)
    entries = entries_of(reply.content)
    if entries is None:
        return {}, Counter({"unreadable": n_cells})
    problems: Counter[str] = Counter()
    found: dict[str, Answer] = {}
    count = Counter(str(entry.get("id")) for entry in entries)
    problems["foreign id"] = sum(n for name, n in count.items() if name not in asked)
    problems["missing"] = sum(name not in count for name in asked)
    problems["duplicate"] = sum(count[name] > 1 for name in asked)
    for entry in entries:
        name = str(entry.get("id"))
        if name not in asked or count[name] > 1:
            continue
        answer, problem = _answer(entry, reply.odds.get(name))
        if answer is None:
            problems[problem] += 1
        else:
            found[name] = answer
    return found, +problems


def _answer(entry: Mapping[str, Any], odds: tuple[float, float] | None) -> tuple[Answer | None, str]:
    label, stated = str(entry.get("label")).strip().lower(), entry.get("p_resistant")
    if label not in RESPONSES:
        return None, "no label"
    if odds is not None and sum(odds) > 0:
        return Answer(odds[0] / sum(odds), "logprobs"), ""
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 <= stated <= 1:
        return None, "no probability"
    if stated != 0.5 and (stated > 0.5) != (label == RESISTANT):
        return None, "contradiction"
    return Answer(float(stated) if label == RESISTANT else min(stated, SENSITIVE_TIE), "stated"), ""
