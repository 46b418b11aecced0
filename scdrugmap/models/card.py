"""What is known about a model before its weights are touched: one frozen record per model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal["foundation", "llm", "bundled", "baseline"]


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from and how they may be used."""

    files: tuple[str, ...]  # names, patterns or "a or b" inside the folder, in the upstream project's own layout
    licence: str  # of the weights, which may differ from the code's
    hub: str = ""  # "owner/name" on the Hugging Face Hub, empty where no copy is published
    revision: str = ""  # pinned 40-hex commit of `hub`
    official: str = ""  # page of the official place, where there is no Hub copy
    instruction: str = ""  # what a person does to get the files, one sentence
    bundled: str = ""  # folder inside the package, for models that need no download
    package: str = ""  # "module/folder" of an installed package that carries the files
    gated: bool = False  # the Hub gives `hub` only to accounts that accepted its licence
    size_mb: float | None = None  # of the download


@dataclass(frozen=True)
class ModelCard:
    """One model of the registry. `key` is its name in Python, CLI, URL, files and on screen."""

    key: str
    title: str
    kind: Kind
    summary: str  # one sentence for a biologist
    paper: str  # "doi:..." or "arXiv:..."; empty for ours
    code: str
    licence: str  # of the code
    weights: Weights
    dim: int  # width of a cell embedding with the default weights; 0 where there is none
    genes: Literal["symbol", "ensembl"]  # identifier of the vocabulary
    input: Literal["counts", "log1p-cp10k", "ranks", "text"]  # what the model makes of raw counts, first step
    config: MappingProxyType[str, Any] = field(
        default_factory=lambda: MappingProxyType({})
    )  # sizes of the default weights
    n_parameters: int | None = None  # of the network that embeds, without unused heads; checked by a test
    max_length: int | None = None  # tokens a cell may use, special tokens included
    pretrained_on: str = ""  # corpus, in words
    pretrained_accessions: frozenset[str] = frozenset()  # accessions seen in pretraining, for the leak badge
    lora_targets: tuple[str, ...] = ()  # names of the plain linears that LoRA adapts
    settings: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # names and defaults
    variants: tuple[str, ...] = ()
    variant_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by variant, in place of weights.files
    source_settings: tuple[str, ...] = ()  # those of `settings` that choose among the checkpoint's files or tensors
    fitted: bool = False  # baselines: genes and loadings are fitted on the training side of each split
    prompted: bool = False  # an LLM that is asked for answers: no weights, no embedding, `dim` 0, and no folder parts
    context: bool = False  # cells see each other: they are embedded together, never in shards
    architecture: str = ""  # folder whose code this model runs, where it has none of its own: a model's key, or "text"
    cites: str = ""  # BibTeX key or reference line
    recipe: int = 1  # bump when embeddings change for the same weights and settings

    @property
    def module(self) -> str:
        """Import path of the model's folder: `scgpt-mini` lives in `scdrugmap.models.scgpt_mini`."""
        return "scdrugmap.models." + folder_name(self.key)

    @property
    def code_module(self) -> str:
        """Import path of the folder with `tokens`, `network` and `convert` (or `fit`, or `load`): another model's
        where the card names an `architecture`.
        """
        return "scdrugmap.models." + folder_name(self.architecture or self.key)

    def source_choices(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Give those of the settings that choose among the checkpoint's files or tensors."""
        return {name: settings[name] for name in self.source_settings}

    def for_variant(self, settings: Mapping[str, Any]) -> ModelCard:
        """Give the card with the files of the variant that the settings choose, where they choose one."""
        files = self.variant_files.get(settings.get("variant", ""))
        return replace(self, weights=replace(self.weights, files=files)) if files else self


def folder_name(key: str) -> str:
    """Give the model's folder in `scdrugmap/models`: its key as a Python name."""
    return key.replace("-", "_").replace(".", "_")
