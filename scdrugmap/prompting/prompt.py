"""The text that a language model is asked with, and the form that its answer must have.

Of a cell, the text holds its most highly expressed genes in their order, and nothing else but what the user chose to
say about drug, cancer type and tissue: no barcode, sample, data set or study. Cells are called c1, c2, ... in the order
of the request.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from scdrugmap.data.labels import RESPONSES

VERSION = 2  # of the wording; part of the provenance
SYSTEM = (
    "You judge from gene expression how single tumour cells respond to a drug treatment. Each cell is given by an id "
    "and the names of its most highly expressed genes, highest first. For each cell, say whether it is sensitive "
    "(responds to the treatment) or resistant (does not respond), and with which probability it is resistant. Judge "
    "each cell by itself; any share of the cells may be resistant. Answer with JSON of this form and nothing else: "
    '{"answers": [{"id": ID, "label": "sensitive" or "resistant", "p_resistant": PROBABILITY}, ...]}, one entry for '
    "each id. PROBABILITY is between 0 and 1: below 0.5 for sensitive cells, 0.5 or more for resistant ones."
)
_EXAMPLES = "Cells whose response is known:"
_CELLS = "Cells to judge:"
KEPT = ("type", "properties", "required", "additionalProperties")  # of a schema; docstrings are not sent


@dataclass(frozen=True)
class CellText:
    """What is told of one cell."""

    genes: tuple[str, ...]  # highest expressed first
    about: str = ""  # drug, cancer type and tissue, as far as they are told


@dataclass(frozen=True)
class Example:
    """A cell whose label is told."""

    cell: CellText
    label: str

    def line(self, about: str) -> str:
        """Return what is told of it among cells of which `about` is told: what differs stands beside the label."""
        differs = f" ({self.cell.about})" if self.cell.about not in ("", about) else ""
        return f"{self.label}{differs}: {' '.join(self.cell.genes)}"


def names_of(n_cells: int) -> list[str]:
    """Return the ids of the cells of one request: c1, c2, ..."""
    return [f"c{number}" for number in range(1, n_cells + 1)]


def messages(cells: Sequence[CellText], examples: Sequence[Example] = ()) -> list[dict[str, str]]:
    """Return the chat messages that ask about cells of which the same is told, after the examples."""
    parts = []
    if examples:
        parts += [_EXAMPLES, *(example.line(cells[0].about) for example in examples), ""]
    if cells[0].about:
        parts += [cells[0].about, ""]
    named = zip(names_of(len(cells)), cells, strict=True)
    parts += [_CELLS, *(f"{name}: {' '.join(cell.genes)}" for name, cell in named)]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n".join(parts)}]


class CellAnswer(BaseModel, extra="forbid", strict=True):
    """What is answered about one cell, in the agreed form."""

    id: str
    label: Annotated[Literal["sensitive", "resistant"], WithJsonSchema({"type": "string", "enum": list(RESPONSES)})]
    p_resistant: float


class CellAnswers(BaseModel, extra="forbid", strict=True):
    """An answer about the cells of one request: what structured outputs hold an endpoint to."""

    answers: list[CellAnswer]


class _SchemaInOrder(GenerateJsonSchema):
    """Schemas in the order of the fields, without titles: every letter is part of `prompt_hash` and of the price."""

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        return value

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@functools.cache
def schema(n_cells: int) -> dict[str, Any]:
    """Return the JSON schema of an answer about so many cells, in the subset that strict structured outputs take."""
    answers, answer = (
        {name: part for name, part in model.model_json_schema(schema_generator=_SchemaInOrder).items() if name in KEPT}
        for model in (CellAnswers, CellAnswer)
    )
    answer["properties"]["id"]["enum"] = names_of(n_cells)
    answers["properties"]["answers"]["items"] = answer  # in place of a reference, which not every endpoint follows
    return answers


def prompt_hash() -> str:
    """Return a hash of the wording, for the provenance: twelve hexadecimal digits."""
    wording = json.dumps([VERSION, SYSTEM, _EXAMPLES, _CELLS, schema(1)])
    return hashlib.sha256(wording.encode()).hexdigest()[:12]
