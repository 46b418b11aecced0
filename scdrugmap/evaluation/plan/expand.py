"""From one question to a grid of experiments."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from scdrugmap.errors import InvalidInput, UnknownName, WeightsInvalid, WeightsMissing
from scdrugmap.evaluation.experiment import BASELINES, CONSTANT, STRATEGIES, Experiment, Options, Scalar, sorted_options
from scdrugmap.evaluation.strategies.features import load_encoder, weights_of
from scdrugmap.evaluation.strategies.heads import HEADS
from scdrugmap.evaluation.strategies.lora.training_options import LoraOptions
from scdrugmap.models import MODELS
from scdrugmap.models.checkpoints.download import HUB_ID, locate
from scdrugmap.models.checkpoints.locate import state
from scdrugmap.prompting.prompt import prompt_hash
from scdrugmap.settings import Settings

MODEL_HEADS = ("mlp",)
STRATEGY_HEADS: Mapping[str, tuple[str, ...]] = {"lora": ("mlp",), "prompt": ("prompt",)}  # no choice of the asker's
_NAMED = 4  # data sets that a facet value spells out

GivenSettings = Mapping[str, Mapping[str, Scalar]]  # by model, strategy or head


class Named(Protocol):
    """What a plan needs to know of a data set."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def content(self) -> str:
        """Hash of its cells, labels and groups."""

    def facet(self, facet: str) -> str:
        """Return its value of a facet."""


DataSet = TypeVar("DataSet", bound=Named)


def expand_grid(
    question: Experiment,
    sources: Sequence[Named],
    models: Sequence[str],
    heads: Sequence[str] | Mapping[str, Sequence[str]] | None,
    strategies: Sequence[str],
    shots: Sequence[int],
    device: str = "auto",
    *,
    knobs: GivenSettings | None = None,
    options: GivenSettings | None = None,
    weights: Mapping[str, str] | None = None,
    fetch: bool = True,
) -> list[Experiment]:
    """Return the experiments of a question, each once: groups of data sets x models x heads x strategies x shots.

    `question` holds what they have in common: protocol, split_by, facet, folds, train and seed. `heads` are for the
    strategy freeze, for all models or by model. `knobs` are the models' settings by model, `options` those of training
    by strategy or head, `weights` folders or Hub ids by model, in place of the cards' sources. With shots, as many
    target cells as the most shots are set aside in all of them. A model takes part under the strategies that are
    possible for it; raises `InvalidInput` where that is none or nothing was asked, `UnknownName` for a model or head
    that there is not, and what is wrong with `weights`. Without `fetch` none are downloaded to be named.
    """
    _require_lists(models, heads, strategies, shots)
    entries = list(_entries(models, heads, strategies))
    settings = {model: sorted_options(dict((knobs or {}).get(model, {}))) for model in models}
    given = weights or {}
    hashes = {model: _weights(model, device, settings[model], given.get(model), fetch=fetch) for model in models}
    crossed = question.protocol == "cross-data"
    question = dataclasses.replace(question, reserve=max(shots) if crossed else 0)
    experiments = [
        dataclasses.replace(
            question,
            model=model,
            head=head,
            strategy=strategy,
            datasets=tuple(source.name for source in group),
            contents=tuple(source.content for source in group),
            weights=hashes[model],
            settings=settings[model],
            options=_options(strategy, head, options or {}),
            shots=k,
            facet_value=value,
        )
        for (value, group), (model, head, strategy), k in itertools.product(
            groups(sources, question.facet).items(), entries, shots if crossed else (None,)
        )
    ]
    return list(dict.fromkeys(experiments))


def groups(sources: Sequence[DataSet], facet: str) -> Mapping[str, list[DataSet]]:
    """Return the data sets of each value of a facet.

    Facet "all" puts all that are given into one group, named after them.
    """
    if facet == "all":
        names = [source.name for source in sources]
        return {"+".join(names) if len(names) <= _NAMED else f"{len(names)} data sets": list(sources)}
    values = sorted({source.facet(facet) for source in sources})
    return {value: [source for source in sources if source.facet(facet) == value] for value in values}


def possible(model: str) -> tuple[str, ...]:
    """Return the strategies under which a model can take part; raises `UnknownName` for one that there is not."""
    if model == CONSTANT:
        return ("freeze",)
    card = MODELS[model]
    if card.prompted:
        return ("prompt",)
    return ("freeze", "lora") if card.lora_targets and not card.fitted else ("freeze",)


def _require_lists(models: object, heads: object, strategies: object, shots: object) -> None:
    """Refuse a word where a list of words belongs, and an empty list."""
    for word, values in (("model", models), ("strategy", strategies), ("number of shots", shots), ("head", heads)):
        if isinstance(values, str) or not (values or word == "head"):
            message = f"There is no {word} in {values!r}."
            raise InvalidInput(message, "Give a list, such as models=['hvg', 'scgpt-mini'].")


def _entries(
    models: Sequence[str], heads: Sequence[str] | Mapping[str, Sequence[str]] | None, strategies: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return model, head and strategy of all that compete."""
    for strategy in strategies:
        if strategy not in STRATEGIES:
            message = f"There is no strategy '{strategy}'."
            raise InvalidInput(message, f"Known: {', '.join(STRATEGIES)}.")
    entries = []
    for model in models:
        can = possible(model)
        taken = [strategy for strategy in strategies if strategy in can]
        if not taken:
            message = f"'{model}' cannot be asked with the strategy {' or '.join(strategies)}."
            raise InvalidInput(message, f"Possible for it: {', '.join(can)}.")
        for strategy in taken:
            chosen = _heads_of(model, heads) if strategy == "freeze" else STRATEGY_HEADS[strategy]
            entries += [(model, head, strategy) for head in chosen]
    return entries


def _heads_of(model: str, heads: Sequence[str] | Mapping[str, Sequence[str]] | None) -> Sequence[str]:
    chosen = heads.get(model) if isinstance(heads, Mapping) else heads
    if chosen is None or model == CONSTANT:
        return BASELINES.get(model, MODEL_HEADS)
    return [HEADS[head].key for head in chosen]


def _options(strategy: str, head: str, given: GivenSettings) -> Options:
    """Return what was given for the strategy and, where the head was chosen, for the head."""
    mine = dict(given.get(strategy, {}))
    if strategy == "lora":
        LoraOptions.from_options(sorted_options(mine))  # a slip of the pen is said before anything is run
    return sorted_options(mine | dict(given.get(head, {})) if strategy == "freeze" else mine)


def require_known(given: GivenSettings) -> None:
    """Raise `UnknownName` for options of what is neither a strategy nor a head."""
    for name in given:
        if name not in STRATEGIES and name not in HEADS:
            message = f"There is neither a strategy nor a head called '{name}'."
            raise UnknownName(message, f"Known: {', '.join((*STRATEGIES, *HEADS))}.")


def placed(weights: Mapping[str, str | Path], models: Iterable[str]) -> dict[str, str]:
    """Return weights by model, folders by their whole path; `models` are those that take part.

    Raises `UnknownName` for a model that there is not, `InvalidInput` for one that does not take part or has no
    weights, and `WeightsMissing` for a folder that is not there.
    """
    used = list(dict.fromkeys(models))
    places = {}
    for model, where in weights.items():
        if model == CONSTANT or MODELS[model].fitted or MODELS[model].prompted:
            message = f"'{model}' has no weights that could lie in '{where}'."
            raise InvalidInput(message, f"Leave out --weights {model}=...")
        if model not in used:
            message = f"Weights are given for '{model}', which nobody asks for."
            raise InvalidInput(message, f"Asked are: {', '.join(used)}.")
        folder = Path(where).expanduser()
        if not (folder.is_dir() or HUB_ID.fullmatch(str(where))):
            locate(MODELS[model], where, Settings.from_env().weights)  # raises, in its own words
        places[model] = str(folder.resolve() if folder.is_dir() else where)
    return places


def _weights(model: str, device: str, settings: Options, given: str | None, *, fetch: bool) -> str:
    """Return the hash of a model's weights; none where they are not here, which the run will say.

    Of weights that were given, what is wrong is raised: the asker is here, and can mend it.
    """
    if model == CONSTANT or MODELS[model].fitted:
        return ""
    if MODELS[model].prompted:
        return f"prompt:{prompt_hash()}"  # the endpoint's weights are nobody's to hash; what we ask is ours
    card = MODELS[model].for_variant(dict(settings))
    here = Path(given).is_dir() if given else state(card, Settings.from_env().weights) != "needs weights"
    if not (fetch or here):
        return ""
    try:
        return weights_of(load_encoder(model, device, settings, given))
    except (WeightsMissing, WeightsInvalid):
        if given:
            raise
        return ""
