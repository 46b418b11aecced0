"""What is known about a data set before its cells are touched: one frozen record, read from one TOML file.

A card holds what the source's table says, with its slips put right. Each correction is kept beside the value that
was published, so that the published facets can be rebuilt (`card.published("cancer_type")`). Everything that
follows from the declared fields (confounding, confidence, drugs, links, warnings) is derived here, never typed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scdrugmap.data.catalog.regimens import split_regimen
from scdrugmap.errors import UnknownName

Collection = Literal["primary", "external", "added"]
Basis = Literal["sample response", "time point"]
Confidence = Literal["high", "moderate", "low", "very low"]
Value = str | int | date | None
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]

# How far a label can be taken as resistance of that cell; the rule reads `basis` and the samples of the smaller class.
CONFIDENCE: dict[Confidence, str] = {
    "high": "response was judged per sample, with three or more samples in each class",
    "moderate": "response was judged per sample, with two samples in the smaller class",
    "low": "response was judged per sample but one class is a single sample, or the label is the time point, "
    "with two or more samples in each class",
    "very low": "the label is the time point and one class is a single sample: treatment, batch and response are one",
}
SMALL_CLASS = 100  # cells; below it every score of the class hangs on a handful of cells
# Columns of a table of all data sets, one plain value each, then those that hold a list.
_ROW: tuple[str, ...] = (
    "key",
    "title",
    "collection",
    "accession",
    "cancer_type",
    "cancer_group",
    "cancer_subtype",
    "tissue",
    "material",
)
_ROW += ("drug_type", "regimen", "organism", "time_point", "samples_sensitive", "samples_resistant", "cells")
_ROW += ("cells_sensitive", "cells_resistant", "share_sensitive", "cells_source", "label_level", "label_basis")
_ROW += ("confidence", "in_preprint", "public_since", "pmid")
ROW_LISTS = ("drugs", "confounded", "flags", "warnings")

# Where one cancer goes by a narrower name in one collection than in the other.
_BROADER_CANCER = {"Non-small cell lung cancer": "Lung cancer", "Hepatocellular cancer": "Liver cancer"}


class Slip(BaseModel):
    """What the source's table says wrongly; the right value is the card's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    field: Text
    published: Value
    why: Text


@dataclass(frozen=True)
class Correction:
    """A slip beside the value that took its place."""

    field: str
    published: Value
    corrected: Value
    why: str


class DatasetCard(BaseModel):
    """Cells of one accession under one regimen and time point, with a label rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Text  # the name in Python, CLI, URL, files and on screen; the TOML file's stem
    collection: Collection  # "added": not among the paper's 60
    series: Count | None = None  # 7 for the source's "Data7"
    in_preprint: bool = False  # the preprint's collections: all primary sets and 17 of the external ones
    accession: Text
    subgroup: str = ""  # what the source calls this part of the accession
    variant: str = ""  # what tells it from a sibling of the same regimen: a line, a stage
    material: Text  # patients, PDX, a cell line, an organoid
    tissue: Text
    cancer_type: Text
    cancer_subtype: Text
    drug_type: Text
    regimen: Text | None = None  # as the source words it; None where it does not say
    organism: Text
    time_point: Literal["pre", "post"] | None = None  # when all samples were taken, where the source splits by it
    label_basis: Basis
    samples_sensitive: Annotated[int, Field(ge=1)]
    samples_resistant: Annotated[int, Field(ge=1)]
    cells_sensitive: Count | None = None
    cells_resistant: Count | None = None
    cells_source: Literal["published", "derived from facet sums"] | None = None
    public_since: date
    pmid: int | None = None
    raw_data: str = ""  # accession or address of the reads, often under controlled access
    protocol: str = ""
    processing: str = ""
    notes: tuple[Text, ...] = ()
    slips: tuple[Slip, ...] = ()
    # Set by the catalogue, which sees all cards:
    shares_controls_with: tuple[str, ...] = ()
    shared_sensitive_cells: int | None = None
    pooled_with: tuple[str, ...] = ()  # sets whose cells are published only together with these
    pooled_cells: tuple[int, int] | None = None  # sensitive and resistant cells of this set and those

    @model_validator(mode="after")
    def _check(self) -> DatasetCard:
        counts = (self.cells_sensitive, self.cells_resistant, self.cells_source)
        if any(count is None for count in counts) and any(count is not None for count in counts):
            message = "cells_sensitive, cells_resistant and cells_source belong together: give all three or none"
            raise ValueError(message)
        if self.time_point and self.label_basis == "time point":
            message = (
                f"label_basis is the time point, so not all samples can be '{self.time_point}': leave time_point out"
            )
            raise ValueError(message)
        for slip in self.slips:
            if getattr(self, slip.field, slip.published) == slip.published:
                message = f"the slip of '{slip.field}' names no field of the card, or the value that the card has"
                raise ValueError(message)
        return self

    # ---- label -----------------------------------------------------------------------------------------------------
    @property
    def label_level(self) -> Literal["sample"]:
        """Every cell inherits the label of its sample; no set of the catalogue was labelled cell by cell."""
        return "sample"

    @property
    def samples_total(self) -> int:
        """Samples of both classes."""
        return self.samples_sensitive + self.samples_resistant

    @property
    def confounded(self) -> tuple[Literal["sample", "time point"], ...]:
        """What the label cannot be told apart from inside this set; empty where it can.

        "sample": a class is a single sample, so that no split by sample leaves both classes on both sides.
        "time point": sensitive cells were taken before treatment, resistant ones after it.
        """
        sample = min(self.samples_sensitive, self.samples_resistant) == 1
        return (*(("sample",) if sample else ()), *(("time point",) if self.label_basis == "time point" else ()))

    @property
    def confidence(self) -> Confidence:
        """How far the label can be taken as resistance; `CONFIDENCE` says the rule."""
        smaller = min(self.samples_sensitive, self.samples_resistant)
        if self.label_basis == "time point":
            return "very low" if smaller == 1 else "low"
        return "high" if smaller >= 3 else "moderate" if smaller == 2 else "low"

    # ---- cells -----------------------------------------------------------------------------------------------------
    @property
    def cells(self) -> int | None:
        """Cells of both classes, None where the source does not say."""
        if self.cells_sensitive is None or self.cells_resistant is None:
            return None
        return self.cells_sensitive + self.cells_resistant

    @property
    def share_sensitive(self) -> float | None:
        """Sensitive cells among all cells, 0 to 1, None where unknown."""
        return self.cells_sensitive / self.cells if self.cells and self.cells_sensitive is not None else None

    @property
    def cells_note(self) -> str:
        """Where the number of cells comes from, as a sentence."""
        if self.cells_source == "published":
            return "The source gives these numbers for this data set."
        if self.cells_source:
            return "Derived: the only numbers that agree with the sums which the source gives for groups of data sets."
        if not self.pooled_cells:
            return "The source does not say how many cells of each response there are."
        sensitive, resistant = self.pooled_cells
        return (
            f"The source gives no numbers for this data set alone. Together with {', '.join(self.pooled_with)} it has "
            f"{sensitive + resistant:,} cells: {sensitive:,} sensitive, {resistant:,} resistant."
        )

    # ---- names and links -------------------------------------------------------------------------------------------
    @property
    def study(self) -> str:
        """All data sets of one accession are one study: they may share patients and even cells."""
        return self.accession

    @property
    def title(self) -> str:
        """Name for people, unique in the catalogue."""
        what = f"{self.accession} {self.regimen or self.drug_type.lower()}"
        return ", ".join(
            part for part in (what, self.variant, f"{self.time_point}-treatment" if self.time_point else "") if part
        )

    @property
    def drugs(self) -> tuple[str, ...]:
        """Components of the regimen, alternatives included, in its order."""
        return split_regimen(self.regimen or "")

    @property
    def cancer_group(self) -> str:
        """Cancer type by the broader of the two collections' names, for views that show both."""
        return _BROADER_CANCER.get(self.cancer_type, self.cancer_type)

    @property
    def geo_url(self) -> str:
        """Page of the accession on GEO; empty for what is not a GEO series."""
        is_geo = self.accession.startswith("GSE")
        return f"https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc={self.accession}" if is_geo else ""

    @property
    def pubmed_url(self) -> str:
        """Page of the article; empty where the source names none."""
        return f"https://pubmed.ncbi.nlm.nih.gov/{self.pmid}/" if self.pmid else ""

    # ---- what was published ----------------------------------------------------------------------------------------
    @property
    def corrections(self) -> tuple[Correction, ...]:
        """The source's slips, each beside the value that took its place."""
        return tuple(Correction(s.field, s.published, getattr(self, s.field), s.why) for s in self.slips)

    def published(self, field: str) -> Any:
        """Return the value of a field (or derived property) as the source's table has it."""
        for slip in self.slips:
            if slip.field == field:
                return slip.published
        if field not in type(self).model_fields and not isinstance(getattr(type(self), field, None), property):
            message = f"A data set card has no field called '{field}'."
            raise UnknownName(message, f"Known: {', '.join(type(self).model_fields)}.")
        return getattr(self, field)

    # ---- for the screen --------------------------------------------------------------------------------------------
    @property
    def flags(self) -> tuple[str, ...]:
        """One-word marks for a table: confounded, shared controls, corrected."""
        marks = {"confounded": self.confounded, "shared controls": self.shares_controls_with, "corrected": self.slips}
        return tuple(mark for mark, present in marks.items() if present)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before believing a score on this set, as sentences."""
        warnings = [_CONFOUNDED.get(self.confounded, ""), self._shared(), self._small()]
        return tuple(sentence for sentence in warnings if sentence)

    def _shared(self) -> str:
        if not self.shares_controls_with:
            return ""
        count = "its" if self.shared_sensitive_cells is None else f"{self.shared_sensitive_cells:,}"
        others = len(self.shares_controls_with)
        return f"Shares {count} sensitive cells with {others} other data set{'s' if others > 1 else ''} of the study."

    def _small(self) -> str:
        counts = {"sensitive": self.cells_sensitive, "resistant": self.cells_resistant}
        small = [f"{n:,} {label}" for label, n in counts.items() if n is not None and n < SMALL_CLASS]
        return f"Only {' and '.join(small)} cells: a score of that class hangs on a handful of cells." if small else ""

    def to_row(self) -> dict[str, Any]:
        """Return the card as a flat row of plain values, for a table of all data sets."""
        lists = {name: list(getattr(self, name)) for name in ROW_LISTS}
        return {name: getattr(self, name) for name in _ROW} | lists

    def to_record(self) -> dict[str, Any]:
        """Return all that the card says, derived values included, as plain values (dates as they are)."""
        derived = ("study", "samples_total", "cells_note", "geo_url", "pubmed_url")
        slips = [asdict(correction) for correction in self.corrections]
        return (
            self.to_row()
            | self.model_dump(exclude={"slips"})
            | {n: getattr(self, n) for n in derived}
            | {"corrections": slips}
        )


_CONFOUNDED: dict[tuple[str, ...], str] = {
    ("sample", "time point"): (
        "Label = sample = time point: a split by cell measures the treatment effect, not resistance. "
        "Only cross-data scores are shown as evidence."
    ),
    ("sample",): (
        "Label = sample: one class is a single sample, so a split by cell also measures what tells that sample apart. "
        "Only cross-data scores are shown as evidence."
    ),
    ("time point",): (
        "Label = time point: sensitive cells were taken before treatment and resistant ones after it, "
        "so a score inside this data set also measures the treatment effect."
    ),
}
