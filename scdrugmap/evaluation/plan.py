"""From one question to a grid of experiments."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from scdrugmap.errors import InvalidInput, WeightsInvalid, WeightsMissing
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.heads import HEADS
from scdrugmap.evaluation.material import Source, groups
from scdrugmap.evaluation.vectors import CONSTANT, load_encoder, weights_of

# The baselines that stand beside every model, and their heads; a model has the paper's.
BASELINES: Mapping[str, tuple[str, ...]] = {
    CONSTANT: ("constant",),
    "hvg": ("logistic", "gradient-boosting"),
    "hvg-pca": ("mlp",),
}
MODEL_HEADS = ("mlp",)


def plan(
    question: Experiment,
    sources: Sequence[Source],
    models: Sequence[str],
    heads: Sequence[str] | None,
    strategies: Sequence[str],
    shots: Sequence[int],
    device: str = "auto",
) -> list[Experiment]:
    """Return the experiments of a question, each once: groups of data sets x models x heads x strategies x shots.

    `question` holds what they have in common: protocol, split_by, facet, folds and seed. Raises `UnknownName` for a
    model or head that there is not, `InvalidInput` where nothing was asked.
    """
    for word, values in (("model", models), ("strategy", strategies), ("number of shots", shots)):
        if isinstance(values, str) or not len(values):
            message = f"There is no {word} in {values!r}."
            raise InvalidInput(message, "Give a list, such as models=['hvg', 'scgpt-mini'].")
    weights = {model: _weights(model, device) for model in models}
    pairs = [(model, head) for model in models for head in _heads_of(model, heads)]
    k_shots = shots if question.protocol == "cross-data" else (None,)
    found = [
        dataclasses.replace(
            question,
            model=model,
            head=HEADS[head].key,
            datasets=tuple(source.name for source in group),
            contents=tuple(source.content for source in group),
            weights=weights[model],
            strategy=strategy,
            shots=k,
            facet_value=value,
        )
        for (value, group), (model, head), strategy, k in itertools.product(
            groups(sources, question.facet).items(), pairs, strategies, k_shots
        )
    ]
    return list(dict.fromkeys(found))


def _heads_of(model: str, heads: Sequence[str] | None) -> Sequence[str]:
    if heads is None or model == CONSTANT:
        return BASELINES.get(model, MODEL_HEADS)
    return heads


def _weights(model: str, device: str) -> str:
    """Return the hash of a model's weights; none where they are not here, which the run will say."""
    try:
        return weights_of(load_encoder(model, device))
    except (WeightsMissing, WeightsInvalid):
        return ""
