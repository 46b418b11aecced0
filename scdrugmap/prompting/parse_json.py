"""Finding the answers in the text of a reply, whatever stands around them: words, a code fence, thinking, a cut.

An endpoint that takes structured outputs answers in the form of `CellAnswers`, which is read as such. Elsewhere answers
are JSON objects with an id: in a list, in a list under "answers", or one after the other. Where a text holds several
such lists, the last one is the answer: what stands before it was a draft. Of a list whose end was cut off, the objects
that are whole count.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from scdrugmap.prompting.prompt import CellAnswers

Entry = dict[str, Any]
_THINKING = r"(?:think|thinking|thought|reasoning)"
_OPENS, _CLOSES = re.compile(f"<{_THINKING}>", re.IGNORECASE), re.compile(f"</{_THINKING}>", re.IGNORECASE)
_START = re.compile(r'\{\s*"(?:answers|id|label|p_resistant)"|\[\s*\{')  # of what may hold an answer


def entries_of(content: str) -> list[Entry] | None:
    """Return the objects that answer, in their order; None where the text holds none and no empty list of them."""
    with contextlib.suppress(ValueError):
        return CellAnswers.model_validate_json(content).model_dump()["answers"]
    entries: list[Entry] | None = None
    for block in _blocks(_spoken(content)):
        if block or entries is None:
            entries = block
    return entries


def _spoken(content: str) -> str:
    """Return what follows the thinking; nothing of thinking that never ends. A template may open it in the prompt."""
    closed = max((match.end() for match in _CLOSES.finditer(content)), default=0)
    opened = _OPENS.search(content, closed)
    return content[closed : opened.start() if opened else None]


def _blocks(text: str) -> Iterator[list[Entry]]:
    """Yield the lists of answers in a text; answers that stand in no list, up to the next list, are one as well."""
    decoder, loose, at = json.JSONDecoder(), list[Entry](), 0
    while start := _START.search(text, at):
        at = start.start() + 1
        try:
            value, at = decoder.raw_decode(text, start.start())
        except ValueError:
            continue
        except RecursionError:
            break
        if isinstance(value, dict) and "id" in value:
            loose.append(value)
            continue
        listed = value.get("answers") if isinstance(value, dict) else value
        if isinstance(listed, list) and (not listed or any(map(_is_entry, listed))):
            if loose:
                yield loose
                loose = []
            yield list(filter(_is_entry, listed))
    if loose:
        yield loose


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and "id" in value
