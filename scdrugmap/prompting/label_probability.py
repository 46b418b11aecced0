"""P(resistant) from the token at which a label begins, whichever way a tokenizer cuts the label up.

The alternatives that an endpoint lists there are taken as the label that they begin ("res", "sens", "s") or hold
('"resistant', "resistant"), whatever their case and the white space before them. All others count for neither label;
where they are the larger part, the token tells nothing, and what the model states is taken in its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from scdrugmap.data.labels import RESISTANT, SENSITIVE

LEAST_MASS = 0.5  # of both labels together
_LABEL = re.compile(r'"id"\s*:\s*"([^"]*)"\s*,\s*"label"\s*:\s*"\s*')  # ends where the label begins

LabelProbs = tuple[float, float]  # mass of resistant, of sensitive
Tokens = Sequence[tuple[str, Mapping[str, float]]]


def label_probs(tokens: Tokens) -> dict[str, LabelProbs]:
    """Return, by id, the probability mass of "resistant" and of "sensitive" where the label of the id begins.

    `tokens` are the tokens of a reply in order, each with its listed alternatives and their log probabilities. Of an id
    that stands there twice, the last one counts.
    """
    text = "".join(token for token, _ in tokens)
    probs: dict[str, LabelProbs] = {}
    at, start = 0, 0  # a token, and where it begins in the text
    for match in _LABEL.finditer(text):
        while at < len(tokens) and start + len(tokens[at][0]) <= match.end():
            start += len(tokens[at][0])
            at += 1
        if at == len(tokens):
            break
        token, alternatives = tokens[at]
        resistant, sensitive = masses(alternatives, token[: max(match.end() - start, 0)])
        probs.pop(match[1], None)
        if resistant + sensitive >= LEAST_MASS:
            probs[match[1]] = (resistant, sensitive)
    return probs


def masses(alternatives: Mapping[str, float], before: str = "") -> LabelProbs:
    """Return the probability of the alternatives that say resistant, and of those that say sensitive.

    `before` is what the token holds before its label, such as a quotation mark.
    """
    total = {RESISTANT: 0.0, SENSITIVE: 0.0}
    for token, logprob in alternatives.items():
        label = _label(token, before)
        if label and logprob <= 0:  # no NaN
            total[label] += math.exp(logprob)
    return total[RESISTANT], total[SENSITIVE]


def _label(token: str, before: str) -> str:
    """Return the label that a token says after what stands before it; "" for neither."""
    text, start = "".join(token.lower().split()), "".join(before.lower().split())
    rest = text.removeprefix(start)
    if not rest or not text.startswith(start):
        return ""
    for label in (RESISTANT, SENSITIVE):
        if label.startswith(rest) or (rest.startswith(label) and not rest[len(label)].isalpha()):
            return label
    return ""
