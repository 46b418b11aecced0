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
from scdrugmap.prompting.label_probability import LabelProbs
from scdrugmap.prompting.parse_json import entries_of
from scdrugmap.prompting.prompt import names_of

P_SOURCES = {  # of P(resistant), in words
    "logprobs": "read from how sure the model was of the word (token probabilities)",
    "stated": "as the model states it",
}
PROBLEMS = ("unreadable", "missing", "duplicate", "foreign id", "no label", "no probability", "contradiction")
SENSITIVE_TIE = 0.4999  # the most that P is where the label is sensitive: one half is called resistant
ON_DISK = {"label_probs": "odds", "model_version": "served"}  # as paid replies have them since version 1
FIELDS = {written: name for name, written in ON_DISK.items()}


@dataclass(frozen=True)
class Reply:
    """What an endpoint said to one request, as it is kept on disk."""

    content: str  # the text; empty where the model refused
    label_probs: Mapping[str, LabelProbs] = field(default_factory=dict)  # by id: mass of resistant, of sensitive
    input_tokens: int = 0
    output_tokens: int = 0
    finish: str = ""  # why the text ends: stop, length, content_filter, ...
    model_version: str = ""  # the model as the endpoint calls it
    form: str = ""  # what form the endpoint was held to: json_schema, json_object or text
    date: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {ON_DISK.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Reply:
        """Read what `as_dict` wrote; raises `TypeError` or `ValueError` for anything else."""
        if not isinstance(plain["content"], str):
            raise TypeError("content")
        fields = {FIELDS.get(name, name): value for name, value in plain.items()}
        pairs = fields["label_probs"].items()
        return cls(**fields | {"label_probs": {str(name): (float(pair[0]), float(pair[1])) for name, pair in pairs}})


@dataclass(frozen=True)
class Answer:
    """What a model says of one cell."""

    p_resistant: float
    source: str  # one of SOURCES


def read(reply: Reply, n_cells: int) -> tuple[dict[str, Answer], Counter[str]]:
    """Return the readable answers by id, and what was wrong with the others, one of `PROBLEMS` each."""
    names = names_of(n_cells)
    entries = entries_of(reply.content)
    if entries is None:
        return {}, Counter({"unreadable": n_cells})
    problems: Counter[str] = Counter()
    answers: dict[str, Answer] = {}
    count = Counter(str(entry.get("id")) for entry in entries)
    problems["foreign id"] = sum(n for name, n in count.items() if name not in names)
    problems["missing"] = sum(name not in count for name in names)
    problems["duplicate"] = sum(count[name] > 1 for name in names)
    for entry in entries:
        name = str(entry.get("id"))
        if name not in names or count[name] > 1:
            continue
        answer, problem = _answer(entry, reply.label_probs.get(name))
        if answer is None:
            problems[problem] += 1
        else:
            answers[name] = answer
    return answers, +problems


def _answer(entry: Mapping[str, Any], probs: LabelProbs | None) -> tuple[Answer | None, str]:
    label, stated = str(entry.get("label")).strip().lower(), entry.get("p_resistant")
    if label not in RESPONSES:
        return None, "no label"
    if probs is not None and sum(probs) > 0:
        return Answer(probs[0] / sum(probs), "logprobs"), ""
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 <= stated <= 1:
        return None, "no probability"
    if stated != 0.5 and (stated > 0.5) != (label == RESISTANT):
        return None, "contradiction"
    return Answer(float(stated) if label == RESISTANT else min(stated, SENSITIVE_TIE), "stated"), ""
