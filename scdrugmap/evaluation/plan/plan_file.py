"""Plan files: what to run, in a TOML that a person reads and a run can be repeated from.

    title = "Melanoma, leaky and leak-safe"

    [data.melanoma]                       # keys, files, a collection or simulated cells
    files = ["melanoma.h5ad"]             # below --data, else below the plan's folder; may be a pattern

    [remarks]
    melanoma = "a subset of 550 cells"    # by name of the data set, into each record's warnings

    [[ask]]
    models = ["constant", "hvg", "scgpt-mini"]
    strategies = ["freeze", "lora"]
    split_by = ["cell", "sample"]
    seeds = [0, 1, 2]

docs/reproducing.md lists all keys. What cannot be read is said in one line with file, key, value and what is possible.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.data.labels import SIMULATED
from scdrugmap.errors import InvalidInput, ScDrugMapError
from scdrugmap.evaluation.experiment import ProtocolName, Scalar, SplitBy, StrategyName
from scdrugmap.evaluation.plan.expand import possible, require_known
from scdrugmap.evaluation.strategies.heads import HEADS

if TYPE_CHECKING:
    from anndata import AnnData

Facet = Literal["all", "tissue", "cancer_type", "drug_type", "regimen"]
UNNAMED = "unknown"  # what `facet` says of a data set that has no value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def known(name: str) -> str:
        try:
            check(name)
        except ScDrugMapError as error:
            raise ValueError(error.line) from error
        return name

    return AfterValidator(known)


Many = BeforeValidator(_as_list)  # one value may stand without brackets
Key = Annotated[str, _checked(DATASETS.__getitem__)]
Model = Annotated[str, _checked(possible)]
Head = Annotated[str, _checked(HEADS.__getitem__)]
Shots = Annotated[int, Field(ge=0)]
Heads = Annotated[
    Annotated[dict[Model, list[Head]], Tag("by model")] | Annotated[list[Head], Many, Tag("all")],
    Discriminator(lambda given: "by model" if isinstance(given, dict) else "all"),
]


class PlanTable(BaseModel):
    """A table of a plan file: no key but those that are declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(PlanTable):
    """Some data sets; one of the ways to name them, or several."""

    keys: list[Key] = []  # of the catalogue
    collection: Literal["primary", "external", "added"] | None = None  # all of the catalogue's
    files: list[str] = []  # or patterns such as "*.h5ad"
    simulate: dict[str, int | float | str | bool] | None = None  # arguments of scdrugmap.data.simulate.simulate

    @model_validator(mode="after")
    def _some(self) -> Data:
        if not (self.keys or self.collection or self.files or self.simulate is not None):
            message = "names no data set; give keys, collection, files or simulate"
            raise ValueError(message)
        return self


class Ask(PlanTable):
    """One question, or several where a key has a list."""

    models: Annotated[list[Model], Many, Field(min_length=1)]
    data: Annotated[list[str], Many] = []  # tables of [data]; none: all of them
    apart: bool = False  # each data set by itself
    strategies: Annotated[list[StrategyName], Many] = ["freeze"]
    heads: Heads | None = None  # for all models, or by model
    protocol: ProtocolName = "pooled"
    split_by: Annotated[list[SplitBy], Many] = ["cell"]
    facet: Annotated[list[Facet], Many] = ["all"]
    called: str = ""  # the value of facet "all", where the names of the data sets do not say it
    shots: Annotated[list[Shots], Many] = [0]
    seeds: Annotated[list[int], Many] = [0]
    folds: Annotated[int, Field(ge=2)] = 5
    train: Literal["each", "primary"] | list[str] = []  # "each": every set of both classes, alone
    options: dict[str, dict[str, Scalar]] = {}  # of training, by strategy or head
    settings: dict[Model, dict[str, Scalar]] = {}  # of models

    @model_validator(mode="after")
    def _possible(self) -> Ask:
        if self.train and self.protocol != "cross-data":
            message = 'train needs protocol = "cross-data"'
            raise ValueError(message)
        try:
            require_known(self.options)
        except ScDrugMapError as error:
            raise ValueError(error.line) from error
        return self


class Plan(PlanTable):
    """A plan file. `folder` is where it lies."""

    title: str
    about: str = ""
    data: dict[str, Data]
    ask: Annotated[list[Ask], Field(min_length=1)]
    remarks: dict[str, str] = {}
    folder: Path = Path()

    @model_validator(mode="after")
    def _named(self) -> Plan:
        for number, ask in enumerate(self.ask, 1):
            for name in ask.data:
                if name not in self.data:
                    message = f"ask {number} names data '{name}', which is not here; here are {', '.join(self.data)}"
                    raise ValueError(message)
        return self


def read_plan(path: Path) -> Plan:
    """Read a plan file; raises `InvalidInput` with file, key, value and what is possible."""
    try:
        plain = tomllib.loads(path.read_text("utf-8"))
        return Plan(**plain | {"folder": path.resolve().parent})
    except OSError as error:
        message = f"The plan '{path}' cannot be read: {error.strerror}."
        raise InvalidInput(message, "Give a plan file, such as benchmarks/plans/smoke.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path.name} is not TOML: {error}."
        raise InvalidInput(message, "See benchmarks/plans/smoke.toml for the form.") from error
    except ValidationError as error:
        raise InvalidInput(f"{path.name}: {first_error(error)}", "docs/reproducing.md lists the keys.") from error


def first_error(error: ValidationError) -> str:
    """Say the first thing that is wrong: key, value, what is possible."""
    details = error.errors()[0]
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in details["loc"])
    if details["type"] == "extra_forbidden":
        tables: dict[str, type[PlanTable]] = {"ask": Ask, "data": Data}
        known = tables[str(details["loc"][0])] if len(details["loc"]) > 1 else Plan
        possible_keys = ", ".join(name for name in known.model_fields if name != "folder")
        return f"'{place}' is not a key of a plan. Possible: {possible_keys}."
    text = details["msg"].removeprefix("Value error, ").rstrip(".")
    given = "" if isinstance(details["input"], dict) else f" = {details['input']!r}"
    return f"{place}{given}: {text}." if place else f"{text}."


def resolve(plan_: Plan, folder: Path | None = None) -> dict[str, list[str | Path | AnnData]]:
    """Return what each table of [data] names: keys, files that are there, simulated cells.

    `folder` is searched for files before the plan's own. Raises `InvalidInput` for a file that is nowhere.
    """
    return {name: list(_resolve(name, data, plan_, folder)) for name, data in plan_.data.items()}


def _resolve(name: str, data: Data, plan_: Plan, folder: Path | None) -> Iterable[str | Path | AnnData]:
    yield from _keys(data)
    for pattern in data.files:
        places = [place for place in (folder, plan_.folder) if place]
        paths = next((hits for place in places if (hits := sorted(place.glob(pattern)))), [])
        if not paths:
            message = f"data.{name}.files: there is no '{pattern}' in {' or '.join(map(str, places))}."
            raise InvalidInput(message, "Say where the files are, with --data FOLDER.")
        yield from paths
    if data.simulate is not None:
        yield _simulated(name, data.simulate)


def _keys(data: Data) -> Iterable[str]:
    yield from data.keys
    yield from (card.key for card in DATASETS.values() if data.collection and card.collection == data.collection)


def _simulated(name: str, arguments: Mapping[str, Any]) -> AnnData:
    """Return simulated cells whose data sets, studies, samples and patients are called after the table."""
    from scdrugmap.data.simulate import simulate

    try:
        adata = simulate(**arguments)
    except (TypeError, InvalidInput) as error:
        message = f"data.{name}.simulate: {error}"
        raise InvalidInput(message, "scdrugmap.data.simulate.simulate documents the arguments.") from error
    single = adata.obs["dataset"].nunique() == 1
    for column in ("dataset", "study", "sample", "patient_or_line"):
        names = adata.obs[column].astype(str).str.replace("simulated", f"simulated-{name}", n=1)
        adata.obs[column] = f"{SIMULATED}{name}" if single and column == "dataset" else names
    return adata
