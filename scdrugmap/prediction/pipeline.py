"""From cells to P(resistant) for each of them: read, embed, score, map. The same path serves Python, CLI and app."""

from __future__ import annotations

import datetime
import importlib.metadata
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scdrugmap.data.io.read import check_anndata, read_h5ad
from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.embeddings.compute import embed_cells
from scdrugmap.embeddings.compute import provenance as embedded_by
from scdrugmap.errors import InvalidInput
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.card import ModelCard
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.prediction.output import check_target, to_table, write
from scdrugmap.prediction.projection import Projection, project
from scdrugmap.prediction.prompted import Consent, Labelled, Terms, ask_cells, ready_to_ask
from scdrugmap.prediction.reference.fit import Reference, Scores, find_reference, load_reference
from scdrugmap.prediction.summary import THRESHOLD, sample_column, summary
from scdrugmap.progress import Progress
from scdrugmap.settings import Settings

__all__ = ["STAGES", "STAGES_ASKED", "predict", "predict_file", "summary", "to_table"]

# In this order; `embed`, or `ask` of a model that is asked, is the one that counts cells.
STAGES = ("read", "load", "embed", "score", "map", "write")
STAGES_ASKED = ("read", "load", "ask", "map", "write")


def predict(
    adata: AnnData,
    model: str = "scgpt-mini",
    weights: str | Path | None = None,
    *,
    reference: str | Path | Reference | None = None,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int | None = None,
    progress: Progress = False,
    on_stage: Callable[[str], None] = lambda stage: None,
    cache: Path | None = None,
    sample: str | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    consent: Consent = False,
    max_cost: float | None = None,
    examples: Labelled | None = None,
    shots: int | None = None,
    **model_settings: Any,
) -> AnnData:
    """Predict P(resistant) for every cell, zero-shot: nothing is learned from `adata`.

    Writes into `adata` and returns it (a view is copied first): obs `p_resistant` (float32, calibrated), `response`
    ("resistant" from 0.5 on), `novelty` (float32 in [0, 1]), `novel` (bool), `cluster`; obsm `X_<model>`, `X_umap`; uns
    `scdrugmap/prediction`. A model that is asked over the network leaves no `novelty`, `novel` and `X_<model>`, and NaN
    where it gave no readable answer (`prediction.prompted`). Labels that the file brought in obs `response` move to
    `response_given`. On an error `adata` is left as it was.

    Args:
        adata: cells as `read_h5ad` returns them; any other AnnData is checked and read by the same rules first.
        model: key of `MODELS`.
        weights: folder or Hub id; None is the card's source.
        reference: name or folder of a fitted reference, or a `Reference`; None is the bundled or only one of the model.
        device: "auto", "cpu", "cuda", ...
        precision: "float32" or "bfloat16".
        batch_size: cells a batch; None follows the model's token budget.
        progress: True for a bar, or a callable (done, total) that may raise `Cancelled`.
        on_stage: called with each of `STAGES` as it begins; may raise `Cancelled`.
        cache: folder of the embedding store; None keeps nothing.
        sample: obs column that tells samples apart; None looks for a usual name.
        seed: of the map and the clusters.
        settings: where references live; read from the environment if None.
        consent: to send gene names to the endpoint of a model that is asked: True, or a callable that is shown the
            estimate and says yes or no.
        max_cost: US dollars that asking may cost; None is no limit.
        examples: labelled cells that a model that is asked is told of in each request: an AnnData, a path, or the key
            of a data set. Those that stand in `adata` as well are left out.
        shots: how many of each class, drawn by `seed`; None is 5 where there are examples.
        **model_settings: the settings of the model's card.

    Raises:
        InvalidInput: no cells, too few of the model's genes, or a reference that does not belong to the encoder.
        ReferenceMissing: no reference for the model, or several to choose from.
        WeightsMissing: published weights that are not on this machine.
        ConsentMissing, CostLimit, EndpointFailed: of a model that is asked.

    """
    card, terms = MODELS[model], Terms(consent, max_cost, examples, shots)
    _refuse(card, terms, reference=reference, weights=weights)
    adata, cells, column = _admitted(adata, sample)
    if card.prompted:
        how: dict[str, Any] = {"progress": progress, "on_stage": on_stage, "cache": cache, "column": column}
        return ask_cells(adata, cells, card, terms, given=model_settings, seed=seed, **how)
    on_stage("load")
    fitted = _reference(reference, model, settings)
    encoder = load_model(model, weights, device=device, precision=precision, **model_settings)
    fitted.check_encoder(encoder)
    on_stage("embed")
    embedding = _embedded(cells, encoder, cache=cache, batch_size=batch_size, progress=progress)
    on_stage("score")
    scores = fitted.score(embedding)
    on_stage("map")
    projection = project(embedding, seed=seed)
    _mark(adata, _provenance(fitted, encoder, cells, column, projection, seed), encoder, cells)
    _write_into(adata, encoder, embedding, scores, projection)
    return adata


def predict_file(path: str | Path, output: str | Path | None = None, **options: Any) -> AnnData:
    """Read a file through `read_h5ad`, predict, and write `output` (.csv or .h5ad) atomically if it is named.

    `options` are those of `predict`. The input file is never overwritten. Raises `InvalidInput` with what is wrong with
    the file or the output name, before any work is done where that can be known.
    """
    source = Path(path)
    target = check_target(Path(output), source) if output is not None else None
    card = MODELS[options.get("model", "scgpt-mini")]
    terms = Terms(**{name: options[name] for name in vars(Terms()) if name in options})
    if card.prompted:
        known = inspect.signature(predict).parameters
        ready_to_ask(card, {name: value for name, value in options.items() if name not in known}, terms)
    _refuse(card, terms)
    on_stage = options.get("on_stage", lambda stage: None)
    on_stage("read")
    adata = predict(read_h5ad(source), **options)
    if target is not None:
        on_stage("write")
        write(adata, target)
    return adata


def _refuse(card: ModelCard, terms: Terms, **given: object) -> None:
    """Raise `InvalidInput` for what a model has no use for: weights where it is asked, examples where it embeds."""
    for name, value in given.items():
        if card.prompted and value is not None:
            message = f"'{card.key}' is asked over the network and takes no {name}."
            raise InvalidInput(message, f"Leave {name} out.")
    if not card.prompted and (terms.examples is not None or terms.shots is not None):
        message = f"'{card.key}' embeds cells and cannot be told examples."
        fit = f"scdrugmap reference fit --model {card.key} --data FILE --name mine"
        raise InvalidInput(message, f"Fit a head on your labelled cells ({fit}), and predict with --reference mine")


def _embedded(cells: AnnData, encoder: Encoder, **how: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(embed_cells(cells, encoder, **how), dtype=np.float32)


def _reference(reference: str | Path | Reference | None, model: str, settings: Settings | None) -> Reference:
    if isinstance(reference, Reference):
        return reference
    if isinstance(reference, Path):
        return load_reference(reference)
    return load_reference(find_reference(model, reference, settings))


def _admitted(adata: AnnData, sample: str | None) -> tuple[AnnData, AnnData, str | None]:
    """Return what is written into (a view's copy), the cells as the loader would give them, and the sample column.

    The cells are `adata` itself where it came through the loader, else a checked copy.
    """
    if adata.n_obs == 0:
        raise InvalidInput("There are no cells to predict.", "Check how the file was filtered.")
    adata = adata.copy() if adata.is_view else adata
    column = sample_column(adata.obs, sample)
    marks = adata.uns.get("scdrugmap", {})
    return adata, adata if "input" in marks or marks.get("simulated", False) else check_anndata(adata), column


def _mark(adata: AnnData, provenance: dict[str, Any], encoder: Encoder, cells: AnnData) -> None:
    marks = adata.uns.setdefault("scdrugmap", {})
    marks["prediction"] = provenance
    marks.setdefault("embedding", {})[f"X_{encoder.card.key}"] = embedded_by(encoder, cells)


def _write_into(
    adata: AnnData,
    encoder: Encoder,
    embedding: NDArray[np.float32],
    scores: Scores,
    projection: Projection,
) -> None:
    obs = adata.obs
    if "response" in obs and "p_resistant" not in obs:  # else `response` is an earlier prediction of ours
        obs["response_given"] = obs["response"]
    called = np.where(scores.p_resistant >= THRESHOLD, RESISTANT, SENSITIVE)
    obs["response"] = pd.Categorical(called, categories=[SENSITIVE, RESISTANT])
    obs["p_resistant"], obs["novelty"], obs["novel"] = scores.p_resistant, scores.novelty, scores.novel
    obs["cluster"] = pd.Categorical(projection.cluster, categories=sorted(set(projection.cluster), key=int))
    adata.obsm[f"X_{encoder.card.key}"] = embedding
    adata.obsm["X_umap"] = projection.umap


def _provenance(
    fitted: Reference, encoder: Encoder, cells: AnnData, column: str | None, projection: Projection, seed: int
) -> dict[str, Any]:
    """Where the numbers come from, as nested scalars and string arrays that h5ad can hold."""
    card, coverage = fitted.card, encoder.coverage(cells)
    headline = {key: value for key, value in card.headline.items() if value is not None and key != "units"}
    units = np.array(card.headline["units"], dtype=object)
    recorded = cells.uns["scdrugmap"].get("input", {})
    return {
        "model": encoder.card.key,
        "weights_hash": encoder.weights_hash,
        "recipe": encoder.card.recipe,
        "settings": {key: str(value) for key, value in encoder.settings.items()},
        "precision": encoder.precision,
        "device": str(encoder.device),
        "reference": card.name,
        "reference_date": card.date,
        "trained_on": np.array([f"{row['dataset']} ({row['study']})" for row in card.trained_on], dtype=object),
        "held_out": {"protocol": card.held_out["protocol"], "verdict": card.held_out["verdict"], "units": units}
        | headline,
        "calibration": card.calibration["method"],
        "novelty_threshold": fitted.novelty.threshold,
        "threshold": THRESHOLD,
        "input": {key: value for key, value in recorded.items() if not key.startswith("checks")},
        "simulated": bool(cells.uns["scdrugmap"].get("simulated", False)),
        "n_cells_in_reference": int(fitted.taught_by(cells).sum()),
        "n_genes_matched": int(coverage.n_matched),
        "n_genes": int(coverage.n_genes),
        "share_genes": float(coverage.share_genes),
        "share_counts": float(coverage.share_counts),
        "sample_column": column or "",
        "map": projection.method,
        "n_laid_out": projection.n_laid_out,
        "seed": seed,
        "version": importlib.metadata.version("scdrugmap"),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "use": "Research use only; not for treatment decisions.",
    }
