"""P(resistant) from a language model that is asked: consent, questions, and what the answers leave in an AnnData.

Labelled cells may be told as examples. Nothing is fitted here, so there is no reference, no calibration and no novelty:
obs gets `p_resistant` as the model puts it (NaN where it gave no readable answer) and `response`, and no `novelty` or
`novel`. The model has no embedding either: the map and the clusters are those of the HVG-PCA baseline on these cells.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.embeddings.compute import embed_cells
from scdrugmap.errors import Cancelled, ConsentMissing, InvalidInput
from scdrugmap.models import load_model
from scdrugmap.models.card import ModelCard
from scdrugmap.prediction.projection import Projection, project
from scdrugmap.prediction.summary import THRESHOLD
from scdrugmap.progress import Progress
from scdrugmap.prompting.asker import PromptResult, PromptRunner
from scdrugmap.prompting.cell_fields import cell_texts
from scdrugmap.prompting.cost import Estimate
from scdrugmap.prompting.endpoint import Endpoint
from scdrugmap.prompting.examples import Examples, check_shots, draw_examples
from scdrugmap.prompting.prompt import VERSION, prompt_hash
from scdrugmap.prompting.reply_cache import prompts_folder
from scdrugmap.prompting.settings import PromptSettings

Labelled: TypeAlias = AnnData | str | Path  # cells with labels: in memory, of a file, or a data set's key
Consent = bool | Callable[[Estimate], bool]
log = logging.getLogger(__name__)
MAP_MODEL = "hvg-pca"
NO_NOVELTY = "not told: a model that is asked has no reference cells to be far from"
NO_CALIBRATION = "none: the probability is the model's own word"
NOT_TESTED = "Nothing here was held out: read it beside this model's scores on labelled data, if there are any."


@dataclass(frozen=True)
class Terms:
    """What a person agrees to, and what labelled cells are told; the arguments of `predict` of these names."""

    consent: Consent = False
    max_cost: float | None = None
    examples: Labelled | None = None
    shots: int | None = None

    def check(self) -> None:
        """Raise `InvalidInput` for what is no limit ("not a number" would stop nothing) and for a slip in the shots."""
        if self.max_cost is not None and not self.max_cost >= 0:
            message = f"{self.max_cost!r} US dollars is no limit."
            raise InvalidInput(message, "Give 0 or more, e.g. --max-cost 1; 0 takes what was answered before.")
        check_shots(self.examples, self.shots)

    def draw(self, cells: AnnData, settings: PromptSettings, seed: int) -> Examples | None:
        """Return the labelled cells to be told, and say where some may not be; raises as `draw_examples` does."""
        if self.examples is None:
            return None
        shots = check_shots(self.examples, self.shots)
        drawn = draw_examples(self.examples, shots, judged=cells, settings=settings, seed=seed)
        if drawn.n_left_out:
            log.warning("%d labelled cells are among the cells to judge, and are not told", drawn.n_left_out)
        if drawn.n_shared_samples:
            log.warning(
                "samples with examples and with cells to judge: %d; their labels are no test", drawn.n_shared_samples
            )
        return drawn


def ready_to_ask(card: ModelCard, given: Mapping[str, Any], terms: Terms) -> PromptSettings:
    """Return the settings; raises what is wrong with them, or `EndpointFailed` without a key, before any work."""
    settings = PromptSettings.from_card(card, given)
    terms.check()
    Endpoint.from_env()
    return settings


def ask_cells(
    adata: AnnData,
    cells: AnnData,
    card: ModelCard,
    terms: Terms,
    *,
    progress: Progress,
    on_stage: Callable[[str], None],
    cache: Path | None,
    column: str | None,
    seed: int,
    given: Mapping[str, Any],
) -> AnnData:
    """Ask about `cells` (the checked form of `adata`) and write into `adata`; the options are those of `predict`.

    Raises `ConsentMissing` or `Cancelled` before anything is sent where nobody agreed, and what `Asker.ask` raises.
    """
    on_stage("load")
    settings = ready_to_ask(card, given, terms)
    asker = PromptRunner(settings, folder=prompts_folder(cache), seed=seed, max_cost=terms.max_cost)
    texts = cell_texts(cells, settings)
    drawn = terms.draw(cells, settings, seed)
    examples = drawn.examples if drawn else ()
    estimate = asker.estimate(texts, examples)
    asker.budget.admit(estimate)
    _agree(terms.consent, estimate)
    on_stage("ask")
    answers = asker.ask(texts, examples, progress=progress)
    on_stage("map")
    projection = _laid_out(cells, cache, seed)
    provenance = _provenance(asker, answers, card, cells, projection)
    if drawn:
        provenance["asked"]["examples"] = drawn.record()
    _write_into(adata, answers, projection)
    adata.uns.setdefault("scdrugmap", {})["prediction"] = provenance | {"sample_column": column or "", "seed": seed}
    return adata


def _agree(consent: Consent, estimate: Estimate) -> None:
    if callable(consent):
        if not consent(estimate):
            raise Cancelled("Nothing was sent.")
    elif not consent:
        message = f"Nobody has agreed to this: {' '.join(estimate.lines)}"
        raise ConsentMissing(message, "To agree, pass consent=True (on the command line: --yes).")


def _laid_out(cells: AnnData, cache: Path | None, seed: int) -> Projection:
    """Lay the cells out by the baseline's embedding; cells with too few of its genes all stand in one place."""
    try:
        embedding = embed_cells(cells, load_model(MAP_MODEL, device="cpu"), cache=cache)
    except InvalidInput:
        embedding = np.zeros((cells.n_obs, 2), dtype=np.float32)
    return project(np.ascontiguousarray(embedding, dtype=np.float32), seed=seed)


def _write_into(adata: AnnData, answers: PromptResult, projection: Projection) -> None:
    obs = adata.obs
    if "response" in obs and "p_resistant" not in obs:  # else `response` is an earlier prediction of ours
        obs["response_given"] = obs["response"]
    for earlier in ("novelty", "novel"):
        if earlier in obs:
            del obs[earlier]
    p = answers.p_resistant
    called = pd.Series(np.where(p >= THRESHOLD, RESISTANT, SENSITIVE)).mask(answers.failed)
    obs["response"] = pd.Categorical(called, categories=[SENSITIVE, RESISTANT])
    obs["p_resistant"] = p
    obs["cluster"] = pd.Categorical(projection.cluster, categories=sorted(set(projection.cluster), key=int))
    adata.obsm["X_umap"] = projection.umap


def _provenance(
    asker: PromptRunner, answers: PromptResult, card: ModelCard, cells: AnnData, projection: Projection
) -> dict[str, Any]:
    """Where the numbers come from, as nested scalars that h5ad can hold."""
    budget, settings = asker.budget, asker.settings
    recorded = cells.uns["scdrugmap"].get("input", {})
    return {
        "model": card.key,
        "asked": {
            "host": asker.endpoint.host,
            "name": settings.name,
            "served": ", ".join(answers.model_versions),
            "prompt": f"{VERSION} ({prompt_hash()})",
            "n_cells": cells.n_obs,
            "n_failed": int(answers.failed.sum()),
            **budget.spent(),
            "price_date": settings.price_date,
            "sources": answers.sources,
            "problems": answers.problems,
            "forms": answers.forms,
        },
        "settings": {key: str(value) for key, value in settings.record().items()},
        "weights_hash": f"prompt:{prompt_hash()}",
        "recipe": card.recipe,
        "calibration": NO_CALIBRATION,
        "novelty": NO_NOVELTY,
        "held_out": {"protocol": "none", "verdict": NOT_TESTED},
        "threshold": THRESHOLD,
        "input": {key: value for key, value in recorded.items() if not key.startswith("checks")},
        "simulated": bool(cells.uns["scdrugmap"].get("simulated", False)),
        "n_cells_in_reference": 0,
        "map": f"{projection.method} of {MAP_MODEL}",
        "n_laid_out": projection.n_laid_out,
        "version": importlib.metadata.version("scdrugmap"),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "use": "Research use only; not for treatment decisions.",
    }
